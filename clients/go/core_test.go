package stentor

// What a client makes of messages, names and full inboxes that no scenario has.

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
)

func TestNamesMatchAsTheServerHasIt(t *testing.T) {
	for _, one := range []struct {
		name, topic string
		expected    bool
	}{
		{"a.b", "a.b", true}, {"a.b", "a.c", false}, {"a.*", "a.b", true}, {"a.*", "a", false}, {"a.*", "a.b.c", false}, {"*.b", "a.b", true},
		{"a.>", "a.b.c", true}, {"a.>", "a", false}, {"a.>", "b.a", false}, {"*.>", "a.b", true}, {"*.>", "a", false}, {">", "a", true}, {"*", "a.b", false},
	} {
		if matches(one.name, one.topic) != one.expected {
			t.Errorf("%s %s", one.name, one.topic)
		}
	}
}

func TestNamesAreSplitIntoCommandsOfBoundedSize(t *testing.T) {
	var names []string
	points := map[string]Point{}
	for n := range 1000 {
		names = append(names, fmt.Sprintf("topic.number.%d", n))
		if n%3 == 0 {
			points[names[n]] = Point{"epoch", 1 << 52}
		}
	}
	var found []string
	for _, part := range split(names, points, 500) {
		from := map[string]any{}
		for topic, point := range part.points {
			from[topic] = []any{point.Epoch, point.Seq}
		}
		text, _ := json.Marshal(map[string]any{"topics": part.names, "from": from})
		if len(text) > 500+len(`{"topics":[],"from":{}}`) {
			t.Fatalf("%d bytes: %s", len(text), text)
		}
		found = append(found, part.names...)
	}
	if !slices.Equal(found, names) {
		t.Fatal("names are missing")
	}
}

func TestPublicationsAreTakenApartAsJSONIs(t *testing.T) {
	for _, message := range []string{
		`{"type":"update","topic":"q.a","seq":5,"ts":7,"data":{"px": 1.50}}`,
		`{"type":"update","topic":"q.a","epoch":"k","seq":1,"ts":7,"data":"}"}`,
		`{"type":"snapshot","topic":"q.a","epoch":"k","seq":9007199254740991,"ts":7,"data":null}`,
	} {
		found, ok := publicationOf([]byte(message))
		var expected struct {
			Type, Topic, Epoch string
			Seq                uint64
			TS                 int64
			Data               json.RawMessage
		}
		if err := json.Unmarshal([]byte(message), &expected); err != nil || !ok {
			t.Fatal(message, ok, err)
		}
		if found.isUpdate != (expected.Type == "update") || string(found.topic) != expected.Topic || string(found.epoch) != expected.Epoch ||
			found.seq != expected.Seq || found.ts != expected.TS || string(found.raw) != string(expected.Data) {
			t.Errorf("%s: %+v", message, found)
		}
	}
	for _, message := range []string{
		``, `{}`, `{"type":"update"`, `{"type":"update","topic":"`, `{"type":"update","topic":"a\"","seq":5,"ts":7,"data":1}`, `{"type":"update","topic":"","seq":5,"ts":7,"data":1}`,
		`{"type":"update","topic":"a","seq":-5,"ts":7,"data":1}`, `{"type":"update","topic":"a","seq":5,"ts":7,"key":true,"data":1}`, `{"type":"update","topic":"a","seq":5,"ts":7,"data":1`,
		`{"type":"update","topic":"a","seq":99999999999999999999,"ts":7,"data":1}`, `{"type":"update","topic":"a","seq":5,"ts":7,"base64":"AA=="}`,
	} {
		if found, ok := publicationOf([]byte(message)); ok {
			t.Errorf("%s: %+v", message, found)
		}
	}
}

// FuzzMessages: whatever a server says is an error or none, and no panic.
func FuzzMessages(f *testing.F) {
	for _, message := range []string{
		`{"type":"hello","heartbeat":1,"limits":{"topics":-5,"message":-1}}`, `{"type":"skip","topic":"a","from":0,"to":0,"why":"too_large","epoch":"e"}`,
		`{"type":"ack","id":1,"topics":[{"topic":"a","epoch":"k","seq":4}]}`, `{"type":"reset","topic":"a","epoch":"","seq":0}`, `{"type":"error","code":"bad_json"}`,
		`{"type":"update","topic":"a","seq":0,"ts":1,"epoch":"z","base64":"AA=="}`, `{"type":"status","code":"draining","retry_ms":[1]}`, `{"type":"pong","id":2,"cursor":"C"}`,
		`{"type":"update","topic":"a","seq":5,"ts":1,"data":5}`, `{"type":"snapshot","topic":"a","epoch":"k","seq":5,"ts":1,"data":5}`, `[]`, `"`, `{"type":7}`,
	} {
		f.Add(message, message)
	}
	f.Fuzz(func(t *testing.T, first, second string) {
		events := 0
		core := newCore(func(Event) { events++ }, func([]byte) {}, 2, func() {})
		_ = core.subscribe([]string{"a", ">"}, How{})
		_ = core.read([]byte(`{"type":"hello","heartbeat":0}`))
		for range 2 {
			for _, message := range []string{first, second, first} {
				_ = core.read([]byte(message))
			}
			core.lost()
		}
		if len(core.topics.places) > 2 || events > 40 {
			t.Fatalf("%d places, %d events", len(core.topics.places), events)
		}
	})
}

func update(topic string, seq uint64) *Update {
	return &Update{Topic: topic, Seq: seq, Raw: []byte("1")}
}

func lines(events []Event) []string {
	var lines []string
	for _, event := range events {
		switch event := event.(type) {
		case *Update:
			lines = append(lines, fmt.Sprint(event.Topic, " ", event.Seq))
		case *Gap:
			lines = append(lines, fmt.Sprint(event.Topic, " without ", event.First, " to ", event.Last, ": ", event.Why))
		case *Reset:
			lines = append(lines, fmt.Sprint(event.Topic, " anew behind ", event.Seq))
		case *Status:
			lines = append(lines, event.Code)
		}
	}
	return lines
}

func expect(t *testing.T, events []Event, expected ...string) {
	t.Helper()
	if found := lines(events); !slices.Equal(found, expected) {
		t.Fatalf("found\n%s\nexpected\n%s", strings.Join(found, "\n"), strings.Join(expected, "\n"))
	}
}

// all is what an inbox holds.
func all(i *inbox) []Event {
	var events []Event
	for {
		taken, _ := i.take(nil)
		if len(taken) == 0 {
			return events
		}
		events = append(events, taken...)
	}
}

func TestOfWhatWaitsTooLongTheNewestValuesStayBehindWhatTheyReplace(t *testing.T) {
	in := newInbox(20*eventBytes, Newest)
	for seq := uint64(1); seq <= 100; seq++ {
		in.put([]Event{update("a", seq), update("b", seq)}, nil)
	}
	events, next := all(in), map[string]uint64{"a": 1, "b": 1}
	if len(events) > 22 || in.bytes != 0 {
		t.Fatal(lines(events), in.bytes)
	}
	for _, event := range events {
		first, last := uint64(0), uint64(0)
		switch event := event.(type) {
		case *Update:
			first, last = event.Seq, event.Seq
		case *Gap:
			first, last = event.First, event.Last
		}
		if topic := topicOf(event); next[topic] != first {
			t.Fatal(lines(events))
		} else {
			next[topic] = last + 1
		}
	}
	if next["a"] != 101 || next["b"] != 101 {
		t.Fatal(next)
	}
}

func TestResetsAndGapsStayInTheirPlaces(t *testing.T) {
	in := newInbox(6*eventBytes+3, Newest)
	in.put([]Event{
		update("a", 5), &Reset{Topic: "a", Epoch: "k2"}, update("a", 1), &Gap{"a", 2, 4, "too_large"}, update("b", 1), &Status{Code: "stale"},
	}, nil)
	expect(t, all(in), "a anew behind 0", "a 1", "b 1", "stale", "a without 2 to 4: too_large")
}

func TestOfATopicWithKeyframesWhatCameSinceTheNewestStays(t *testing.T) {
	in := newInbox(9*eventBytes, Newest)
	var events []Event
	for seq := uint64(1); seq <= 9; seq++ {
		one := update("a", seq)
		one.Key = seq == 2 || seq == 7
		events = append(events, one)
	}
	in.put(events, map[string]bool{"a": true})
	expect(t, all(in), "a without 1 to 6: slow", "a 7", "a 8", "a 9")
}

func TestWhoWaitsIsReadOnOnceHalfWasTaken(t *testing.T) {
	in := newInbox(1000*eventBytes, Wait)
	for seq := uint64(1); in.hasRoom(); seq++ {
		in.put([]Event{update("a", seq)}, nil)
	}
	for taken := 0; !in.hasRoom(); {
		events, _ := in.take(nil)
		if taken += len(events); taken > 1000 {
			t.Fatal("all was taken, and there is no room")
		}
	}
	if in.bytes > 500*(eventBytes+1) {
		t.Fatal(in.bytes)
	}
	<-in.room
}

func TestANameThatIsRefusedTakesNoneOfAnotherCallWithIt(t *testing.T) {
	type command struct {
		ID     uint64
		Op     string
		Topics []string
	}
	var subs []command
	var told []Event
	send := func(text []byte) {
		var said command
		if err := json.Unmarshal(text, &said); err != nil {
			t.Fatal(err)
		}
		if said.Op == "sub" {
			subs = append(subs, said)
		}
	}
	core := newCore(func(event Event) { told = append(told, event) }, send, 9, func() {})
	for _, name := range []string{"a", "b", "c"} {
		if err := core.subscribe([]string{name}, How{}); err != nil {
			t.Fatal(err)
		}
	}
	hello := []byte(`{"type":"hello","heartbeat":0,"limits":{"topics":9,"message":9999}}`)
	refuse := func(id uint64) error {
		return core.read(fmt.Appendf(nil, `{"type":"error","id":%d,"code":"forbidden","message":"b"}`, id))
	}
	if err := core.read(hello); err != nil || len(subs) != 1 || len(subs[0].Topics) != 3 {
		t.Fatal(err, subs)
	}
	if err := refuse(subs[0].ID); err == nil {
		t.Fatal("the connection is of use")
	}
	core.lost()
	subs = nil
	if err := core.read(hello); err != nil || len(subs) != 3 {
		t.Fatal(err, subs)
	}
	told = nil
	if err := refuse(subs[1].ID); err != nil || len(told) != 1 {
		t.Fatal(err, told)
	}
	if refused, is := told[0].(*Error); !is || len(refused.Names) != 1 || refused.Names[0] != "b" {
		t.Fatal(told)
	}
	if len(core.topics.wants) != 2 {
		t.Fatal(core.topics.wants)
	}
}
