package stentor_test

// The client with a real server, real restarts, and a link that is cut and stalled.

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"math/rand"
	"net/http"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"stentor"
)

func refusal(t *testing.T, err error, code string) *stentor.Error {
	t.Helper()
	var found *stentor.Error
	if !errors.As(err, &found) || found.Code != code {
		t.Fatalf("expected %s, found %v", code, err)
	}
	return found
}

func publish(t *testing.T, client *stentor.Client, topic string, value any) stentor.Receipt {
	t.Helper()
	publication, err := client.Publish(bound(t), topic, value)
	check(t, err)
	receipt, err := publication.Wait(bound(t))
	check(t, err)
	return receipt
}

func TestASubscriptionBeginsWithTheLastValueAndGoesOn(t *testing.T) {
	server := serve(t, "0")
	server.publish("q.a", map[string]int{"px": 1})
	client := connect(t, server.url(), soon)
	check(t, client.Subscribe(stentor.How{}, "q.*"))
	events := until(t, client, nil, value("q.a", map[string]int{"px": 1}))
	first := events[len(events)-1].(*stentor.Update)
	if first.Seq != 1 || !first.Snapshot || first.Epoch == "" {
		t.Fatalf("%+v", first)
	}
	publication, err := client.PublishRaw(bound(t), "q.a", []byte(`{"px": 2.50}`))
	check(t, err)
	receipt, err := publication.Wait(bound(t))
	check(t, err)
	event, err := client.Next(bound(t))
	check(t, err)
	second := event.(*stentor.Update)
	if string(second.Raw) != `{"px": 2.50}` || second.Seq != 2 || second.TS != receipt.TS || second.Epoch != first.Epoch || second.Snapshot {
		t.Fatalf("%+v, %+v", second, receipt)
	}
	var quote struct{ PX float64 }
	check(t, second.Decode(&quote))
	if quote.PX != 2.5 || second.Time().UnixMicro() != receipt.TS {
		t.Fatalf("%+v", quote)
	}
}

func TestASnapshotIsCompleteWhateverIsSubscribedTo(t *testing.T) {
	server := serve(t, "0")
	var all []any
	for n := range 3000 {
		all = append(all, fmt.Sprint("q.", n), n)
	}
	server.publish(all...)
	client := connect(t, server.url(), soon)
	check(t, client.Subscribe(stentor.How{Mode: stentor.Latest, Rate: 0.1}, "q.7"))
	values, err := client.Snapshot(bound(t), "q.*")
	check(t, err)
	for n := range 3000 {
		if update := values[fmt.Sprint("q.", n)]; update == nil || string(update.Raw) != strconv.Itoa(n) {
			t.Fatalf("%d: %+v", n, update)
		}
	}
	values, err = client.Snapshot(bound(t), "nothing.here")
	check(t, err)
	if len(values) != 0 {
		t.Fatal(values)
	}
	_, err = client.Snapshot(bound(t), "a..b")
	refusal(t, err, "bad_topic")
	if subscribed := client.Subscriptions(); len(subscribed) != 1 {
		t.Fatal(subscribed)
	}
}

func TestRefusalsAreToldAndLeaveTheRestAsItWas(t *testing.T) {
	server := serve(t, "0")
	client := connect(t, server.url(), soon)
	check(t, client.Subscribe(stentor.How{}, "b"))
	check(t, client.Subscribe(stentor.How{}, "a..b"))
	isError := func(event stentor.Event) bool {
		refused, is := event.(*stentor.Error)
		return is && refused.Code == "bad_topic" && slices.Equal(refused.Names, []string{"a..b"})
	}
	until(t, client, nil, isError)
	publication, err := client.Publish(bound(t), "a..b", 1)
	check(t, err)
	_, err = publication.Wait(bound(t))
	refusal(t, err, "bad_topic")
	publish(t, client, "b", 1)
	until(t, client, nil, value("b", 1))
	for _, how := range []stentor.How{{Mode: "none"}, {Rate: 1}, {Mode: stentor.Latest, Rate: -1}} {
		if client.Subscribe(how, "c") == nil {
			t.Fatalf("%+v was taken", how)
		}
	}
	if client.Subscribe(stentor.How{}) == nil {
		t.Fatal("no names were taken")
	}
}

func TestWhoIsNotThereIsUnreachableAndWhatIsNoServerRefuses(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), 200*time.Millisecond)
	defer cancel()
	_, err := stentor.Connect(ctx, "ws://127.0.0.1:1/ws", soon)
	if found := refusal(t, err, "unreachable"); !strings.Contains(found.Message, "127.0.0.1:1") {
		t.Fatal(found)
	}
	_, err = stentor.Connect(ctx, "tcp://127.0.0.1:1", soon)
	refusal(t, err, "bad_address")
	server := serve(t, "0")
	_, err = stentor.Connect(bound(t), server.url()+"?topics=a..b", soon)
	if found := refusal(t, err, "refused"); !strings.Contains(found.Message, "400") || !strings.Contains(found.Message, "a..b") {
		t.Fatal(found)
	}
}

func TestAfterALossNothingIsMissingAndNothingComesTwice(t *testing.T) {
	server := serve(t, "0")
	link, book := linkTo(t, server.port), newBook(t, true)
	client := connect(t, link.url(), soon)
	check(t, client.Subscribe(stentor.How{}, "t.*", "u"))
	_, err := client.Ping(bound(t))
	check(t, err)
	for n := 1; n < 4; n++ {
		server.publish("t.a", n)
	}
	until(t, client, book, value("t.a", 3))
	for round := range 5 {
		link.cut()
		for n := range 20 {
			server.publish("t.a", 100*round+n)
		}
	}
	server.publish("u", 40)
	until(t, client, book, value("u", 40))
	for at, seq := range book.seen["t.a"] {
		if seq != uint64(at+1) {
			t.Fatal(book.seen["t.a"])
		}
	}
	if len(book.seen["t.a"]) != 103 || book.gaps != nil || book.resets != nil {
		t.Fatalf("%d, %v, %v", len(book.seen["t.a"]), book.gaps, book.resets)
	}
}

func TestARestartIsAResetAndNeverAGap(t *testing.T) {
	book := newBook(t, true)
	first := serve(t, "0")
	client := connect(t, first.url(), soon)
	check(t, client.Subscribe(stentor.How{}, "q.*"))
	check(t, client.Subscribe(stentor.How{Mode: stentor.Latest}, "l.*"))
	_, err := client.Ping(bound(t))
	check(t, err)
	for range 5 {
		first.publish("q.a", 1, "q.gone", 1, "l.a", 1, "l.gone", 1)
	}
	for fifths := 0; fifths < 4; {
		event := until(t, client, book, func(stentor.Event) bool { return true })[0]
		if update, is := event.(*stentor.Update); is && update.Seq == 5 {
			fifths++
		}
	}
	first.end(os.Kill)
	second := serve(t, first.port)
	for n := range 10 {
		second.publish("q.a", n)
	}
	second.publish("l.a", 3, "end", 1)
	check(t, client.Subscribe(stentor.How{}, "end"))
	until(t, client, book, value("end", 1))
	_, err = client.Ping(bound(t))
	check(t, err)
	for _, event := range pending(t, client) {
		book.take(event)
	}
	if expected := map[string]string{"q.a": "9", "l.a": "3", "end": "1"}; !reflect.DeepEqual(book.values, expected) {
		t.Fatal(book.values)
	}
	var reset []string
	for _, one := range book.resets {
		reset = append(reset, one.Topic)
	}
	slices.Sort(reset)
	if !slices.Equal(slices.Compact(reset), []string{"l.a", "l.gone", "q.a", "q.gone"}) || book.gaps != nil {
		t.Fatal(reset, book.gaps)
	}
}

func TestWhoIsSentAwayIsToldAndComesBack(t *testing.T) {
	first := serve(t, "0", "--drain-timeout", "200ms")
	client := connect(t, first.url(), soon)
	first.end(syscall.SIGTERM)
	serve(t, first.port)
	var codes []string
	for range 2 {
		for _, event := range until(t, client, nil, status("connected")) {
			codes = append(codes, event.(*stentor.Status).Code)
		}
	}
	if !slices.Equal(codes, []string{"connected", "draining", "lost", "connected"}) {
		t.Fatal(codes)
	}
}

func TestALinkThatFallsSilentIsGivenUp(t *testing.T) {
	server := serve(t, "0", "--heartbeat", "1s")
	link := linkTo(t, server.port)
	client := connect(t, link.url(), soon)
	check(t, client.Subscribe(stentor.How{}, "a"))
	_, err := client.Ping(bound(t))
	check(t, err)
	link.stall()
	events := until(t, client, nil, status("lost"))
	if lost := events[len(events)-1].(*stentor.Status); !strings.Contains(lost.Message, "nothing was heard") {
		t.Fatal(lost)
	}
	link.cut()
	link.flow()
	server.publish("a", 1)
	until(t, client, nil, value("a", 1))
}

func TestTheNextAddressIsTried(t *testing.T) {
	server, other := serve(t, "0"), serve(t, "0")
	options := soon
	options.Others = []string{other.url()}
	client := connect(t, server.url(), options)
	check(t, client.Subscribe(stentor.How{}, "a"))
	server.publish("a", 1)
	until(t, client, nil, value("a", 1))
	server.end(os.Kill)
	other.publish("a", 2)
	book := newBook(t, true)
	until(t, client, book, value("a", 2))
	if len(book.resets) != 1 || book.gaps != nil {
		t.Fatal(book.resets, book.gaps)
	}
}

func TestWhoLagsComesBackAndIsToldWhatIsGone(t *testing.T) {
	server := serve(t, "0", "--retain", "2MiB", "--lag-limit", "512KiB")
	options := soon
	options.BufferBytes = 200_000
	client := connect(t, server.url(), options)
	check(t, client.Subscribe(stentor.How{}, "t.*"))
	_, err := client.Ping(bound(t))
	check(t, err)
	var burst []any
	for range 200 {
		burst = append(burst, "t.a", strings.Repeat("x", 1000))
	}
	for range 90 {
		server.publish(burst...)
	}
	server.publish("t.a", "last")
	book := newBook(t, true)
	events := until(t, client, book, value("t.a", "last"))
	isLagged := func(event stentor.Event) bool {
		return status("lost")(event) && strings.Contains(event.(*stentor.Status).Message, "4100")
	}
	if !slices.ContainsFunc(events, isLagged) || book.resets == nil || book.gaps != nil {
		t.Fatal(book.resets, book.gaps)
	}
}

func TestAProgramThatIsSlowHoldsNoMoreThanItWantsTo(t *testing.T) {
	for _, how := range []stentor.WhenSlow{stentor.Newest, stentor.Fail} {
		server := serve(t, "0")
		options := soon
		options.BufferBytes, options.WhenSlow = 100_000, how
		client := connect(t, server.url(), options)
		check(t, client.Subscribe(stentor.How{}, "t.*"))
		_, err := client.Ping(bound(t))
		check(t, err)
		var burst []any
		for n := range 50 {
			burst = append(burst, fmt.Sprint("t.", n), strings.Repeat("x", 500))
		}
		for range 20 {
			server.publish(burst...)
		}
		server.publish("t.0", "last")
		if how == stentor.Fail {
			for {
				if _, err = client.Next(bound(t)); err != nil {
					break
				}
			}
			refusal(t, err, "too_slow")
			refusal(t, client.Err(), "too_slow")
			continue
		}
		_, err = client.Ping(bound(t)) // Everything has come.
		check(t, err)
		book := newBook(t, true)
		until(t, client, book, value("t.0", "last"))
		for _, gap := range book.gaps {
			if gap.Why != "slow" {
				t.Fatal(gap)
			}
		}
		if book.gaps == nil || len(book.values) != 50 {
			t.Fatal(len(book.gaps), len(book.values))
		}
	}
}

func TestNewestValuesAtARate(t *testing.T) {
	server := serve(t, "0")
	client := connect(t, server.url(), soon)
	check(t, client.Subscribe(stentor.How{Mode: stentor.Latest, Rate: 5}, "t.a"))
	_, err := client.Ping(bound(t))
	check(t, err)
	var burst []any
	for n := range 100 {
		burst = append(burst, "t.a", n)
	}
	server.publish(burst...)
	if events := until(t, client, nil, value("t.a", 99)); len(events) > 50 {
		t.Fatal(told(events))
	}
	if agreed := client.Subscriptions()["t.a"]; agreed == nil || agreed.Mode != stentor.Latest || agreed.Rate != 5 {
		t.Fatal(agreed)
	}
}

func TestItBeginsWhereOneWasOnAnotherDay(t *testing.T) {
	server := serve(t, "0")
	for n := 1; n < 6; n++ {
		server.publish("t.a", n)
	}
	client := connect(t, server.url(), soon)
	check(t, client.Subscribe(stentor.How{}, "t.a"))
	events := until(t, client, nil, value("t.a", 5))
	epoch := events[len(events)-1].(*stentor.Update).Epoch
	for client.Cursor() == "" {
		_, err := client.Ping(bound(t))
		check(t, err)
		pending(t, client)
	}
	server.publish("t.a", 6)
	for _, how := range []stentor.How{{Points: map[string]stentor.Point{"t.a": {Epoch: epoch, Seq: 5}}}, {Cursor: client.Cursor()}} {
		again, book := connect(t, server.url(), soon), newBook(t, true)
		check(t, again.Subscribe(how, "t.a"))
		until(t, again, book, value("t.a", 6))
		if !slices.Equal(book.seen["t.a"], []uint64{6}) {
			t.Fatal(book.seen)
		}
	}
}

func TestATokenIsShownAndAWrongOneEndsIt(t *testing.T) {
	server := serve(t, "0", "--publish-token", "secret")
	with := func(token string) stentor.Options {
		options := soon
		options.TokenFunc = func(context.Context) (string, error) { return token, nil }
		return options
	}
	if receipt := publish(t, connect(t, server.url(), with("secret")), "a", 1); receipt.Seq != 1 {
		t.Fatal(receipt)
	}
	publication, err := connect(t, server.url(), soon).Publish(bound(t), "a", 1)
	check(t, err)
	_, err = publication.Wait(bound(t))
	refusal(t, err, "forbidden")
	client, err := stentor.Connect(bound(t), server.url(), with("wrong"))
	for err == nil {
		_, err = client.Next(bound(t))
	}
	refusal(t, err, "unauthorized")
}

func TestOverTLSACertificateIsChecked(t *testing.T) {
	folder := t.TempDir()
	server := serve(t, "0", "--tls-listen", "127.0.0.1:0", "--tls-self-signed", folder)
	url := "wss://localhost:" + server.secure + "/ws"
	// As long as the context lets it, it is tried again.
	ctx, cancel := context.WithTimeout(bound(t), 500*time.Millisecond)
	defer cancel()
	_, err := stentor.Connect(ctx, url, soon)
	refusal(t, err, "unreachable")
	if !strings.Contains(err.Error(), "certificate") {
		t.Fatal(err)
	}
	pem, err := os.ReadFile(filepath.Join(folder, "certificate.pem"))
	check(t, err)
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(pem) {
		t.Fatal("there is no certificate in the file")
	}
	options := soon
	options.HTTPClient = &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}}}
	client := connect(t, url, options)
	check(t, client.Subscribe(stentor.How{}, "a"))
	long := strings.Repeat("x", 50_000)
	publish(t, client, "a", long)
	until(t, client, nil, value("a", long))
	// https stands for wss, as http does for ws.
	connect(t, "https://localhost:"+server.secure+"/ws", options)
}

func TestPublicationsWaitForRoomAndForAConnection(t *testing.T) {
	server := serve(t, "0")
	link := linkTo(t, server.port)
	options := soon
	options.PublishesMax = 3
	client := connect(t, link.url(), options)
	link.stall()
	var publications []*stentor.Publication
	for n := range 3 {
		publication, err := client.Publish(bound(t), "a", n)
		check(t, err)
		publications = append(publications, publication)
	}
	short, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	if _, err := client.Publish(short, "a", 3); err == nil || !strings.Contains(err.Error(), "3 publications") {
		t.Fatal(err)
	}
	link.flow()
	for at, publication := range publications {
		receipt, err := publication.Wait(bound(t))
		check(t, err)
		if receipt.Seq != uint64(at+1) {
			t.Fatal(receipt)
		}
	}
	server.end(os.Kill)
	until(t, client, nil, status("lost"))
	if _, err := client.Publish(short, "a", 3); err == nil || !strings.Contains(err.Error(), "no connection") {
		t.Fatal(err)
	}
}

func TestAPublicationWhoseAnswerIsLostIsToldSo(t *testing.T) {
	server := serve(t, "0")
	link := linkTo(t, server.port)
	client := connect(t, link.url(), soon)
	link.stall()
	publication, err := client.Publish(bound(t), "a", 1)
	check(t, err)
	link.cut()
	link.flow()
	_, err = publication.Wait(bound(t))
	refusal(t, err, "disconnected")
}

func TestWhatWasPublishedBeforeClosingIsPublished(t *testing.T) {
	server := serve(t, "0")
	client := connect(t, server.url(), soon)
	for n := range 500 {
		_, err := client.Publish(bound(t), "a", n)
		check(t, err)
	}
	client.Close()
	if values := server.values(); values["a"] != "499" {
		t.Fatal(values)
	}
}

func TestClosingDoesNotWaitForAServerThatTakesNothing(t *testing.T) {
	server := serve(t, "0")
	link := linkTo(t, server.port)
	client := connect(t, link.url(), soon)
	link.stall()
	var publications []*stentor.Publication
	for range 300 {
		publication, err := client.Publish(bound(t), "a", strings.Repeat("x", 60_000))
		check(t, err)
		publications = append(publications, publication)
	}
	client.Close()
	for _, publication := range publications {
		select {
		case <-publication.Done():
		default:
			t.Fatal("it has no answer, and none will come")
		}
	}
}

func TestAClosedClientEndsTheLoopAndRefuses(t *testing.T) {
	server := serve(t, "0")
	client := connect(t, server.url(), soon)
	events := client.Events()
	if event := <-events; !status("connected")(event) {
		t.Fatal(event)
	}
	go client.Close()
	for event := range events {
		t.Fatal(event)
	}
	if client.Err() != nil {
		t.Fatal(client.Err())
	}
	refusal(t, client.Subscribe(stentor.How{}, "a"), "closed")
	_, err := client.Publish(bound(t), "a", 1)
	refusal(t, err, "closed")
	_, err = client.Snapshot(bound(t), "a")
	refusal(t, err, "closed")
	_, err = client.Next(bound(t))
	refusal(t, err, "closed")
	client.Close()
}

// Cuts, stalls, restarts, bursts that make a slow reader lag; in the end what a program has made of the events is what the server has.
func TestAfterAnyFaultsTheBookIsThePublishers(t *testing.T) {
	seeds := 6
	if said, err := strconv.Atoi(os.Getenv("SEEDS")); err == nil {
		seeds = said
	}
	for seed := range seeds {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) { afterFaults(t, int64(seed)) })
	}
}

func afterFaults(t *testing.T, seed int64) {
	chance := rand.New(rand.NewSource(seed))
	settings := []string{"--retain", "1MiB", "--lag-limit", "256KiB"}
	server := serve(t, "0", settings...)
	how := stentor.How{Mode: []stentor.Mode{stentor.All, stentor.All, stentor.Latest}[chance.Intn(3)]}
	topics := []int{3, 40}[chance.Intn(2)]
	topic := func() string { return fmt.Sprint("t.", chance.Intn(topics)) }
	book := newBook(t, how.Mode == stentor.All)
	link := linkTo(t, server.port)
	options := soon
	options.BufferBytes = []int{20_000, 1 << 20}[chance.Intn(2)]
	options.WhenSlow = []stentor.WhenSlow{stentor.Wait, stentor.Newest}[chance.Intn(2)]
	client := connect(t, link.url(), options)
	check(t, client.Subscribe(how, "t.*"))
	check(t, client.Subscribe(how, "end"))
	counted := 0
	publish := func() {
		for range 1 + chance.Intn(10) {
			counted++
			server.publish(topic(), counted)
		}
	}
	for range 25 {
		switch chance.Intn(8) {
		case 0, 1:
			publish()
		case 2:
			var burst []any
			for range 1500 {
				burst = append(burst, topic(), strings.Repeat("x", 900))
			}
			server.publish(burst...)
		case 3, 4:
			for _, event := range pending(t, client) {
				book.take(event)
			}
		case 5:
			link.cut()
		case 6:
			link.stall()
			publish()
			if chance.Intn(2) == 0 {
				link.cut()
			}
			link.flow()
		case 7:
			if chance.Intn(2) == 0 {
				server.end(os.Kill)
				server = serve(t, server.port, settings...)
			}
		}
	}
	var last []any
	for n := range topics/2 + 1 {
		last = append(last, fmt.Sprint("t.", n), fmt.Sprint(n, " ", seed))
	}
	server.publish(append(last, "end", seed)...)
	until(t, client, book, func(stentor.Event) bool { return book.values["end"] == fmt.Sprint(seed) })
	// The last values of a connection that was made meanwhile come before this answer.
	for isBehind := true; isBehind; {
		ctx, cancel := context.WithTimeout(bound(t), time.Second)
		_, err := client.Ping(ctx) // A full inbox would have it wait for ever.
		isBehind = err != nil
		cancel()
		for _, event := range pending(t, client) {
			book.take(event)
		}
	}
	if expected := server.values(); !reflect.DeepEqual(book.values, expected) {
		for topic, value := range expected {
			if book.values[topic] != value {
				t.Errorf("%s: %.40q, expected %.40q", topic, book.values[topic], value)
			}
		}
		t.Fatal("the book isn't the publisher's")
	}
}
