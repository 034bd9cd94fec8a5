// What clients of both libraries do who offer compression: texts on a topic, of which each client publishes some, and everybody gets the same; then many publications of a pattern
// (as in ../node/stream.js).
package main

import (
	"fmt"
	"os"
	"strings"
)

func must(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func check(good bool, format string, arguments ...any) {
	if !good {
		must(fmt.Errorf(format, arguments...))
	}
}

// A client is connected.
type client interface {
	fmt.Stringer
	send(text string)
	next() string
	close()
}

func texts(name string) []string {
	noise := make([]byte, 3000)
	for n := range noise {
		noise[n] = byte(33 + (7919*n*n+len(name))%90)
	}
	quotes := strings.Repeat(name+": {\"bid\":189.21,\"ask\":189.23,\"venue\":\"XNAS\"} grüße ", 20)
	return []string{name + ", short", quotes, string(noise)}
}

func exchange(clients []client) {
	for _, publisher := range clients {
		for _, text := range texts(publisher.String()) {
			publisher.send(text)
			for _, subscriber := range clients {
				got := subscriber.next()
				check(got == text, "%s got %.80q of %s", subscriber, got, publisher)
			}
		}
	}
}

// quote is JSON as it is written, not as somebody would write it again.
func quote(n int) string {
	switch {
	case n%10 == 9:
		return fmt.Sprintf(`{"n": %d}`, n)
	case n%50 == 48:
		noise := make([]byte, 7000)
		for at := range noise {
			noise[at] = byte(48 + (7919*at*at+31*n*at)%43)
		}
		return fmt.Sprintf(`{"n":%d,"noise":"%s"}`, n, noise)
	}
	var levels []string
	for at := range 6 {
		levels = append(levels, fmt.Sprintf("[%d.%d,%d00]", 100+n%7, (7919*n*n+at)%90+10, (n*37+at)%500+1))
	}
	all := strings.Join(levels, ",")
	return fmt.Sprintf(`{"n":%d,"venue":"XNAS","text":"grüße","bids":[%s], "asks":[%s],"last":1.50}`, n, all, all)
}

func message(from client, kind string) string {
	for {
		text := from.next()
		check(!strings.HasPrefix(text, `{"type":"error"`), "%s: %s", from, text)
		if strings.HasPrefix(text, `{"type":"`+kind+`"`) {
			return text
		}
	}
}

func stream(subscribers []client, publisher client, topic string) {
	const count, atOnce = 900, 30
	for _, one := range subscribers {
		one.send(fmt.Sprintf(`{"op":"sub","id":1,"topics":["%s.*"]}`, topic))
	}
	for _, one := range subscribers {
		message(one, "ack")
	}
	name := func(n int) string { return fmt.Sprintf("%s.%d", topic, n%5) }
	for first := 0; first < count; first += atOnce {
		for n := first; n < first+atOnce; n++ {
			publisher.send(fmt.Sprintf(`{"op":"pub","topic":"%s","data":%s}`, name(n), quote(n)))
		}
		for _, one := range subscribers {
			for n := first; n < first+atOnce; n++ {
				got := message(one, "update")
				isIt := strings.HasPrefix(got, `{"type":"update","topic":"`+name(n)+`",`) && strings.HasSuffix(got, `,"data":`+quote(n)+`}`)
				check(isIt, "%s got %.300q for %.80q", one, got, quote(n))
			}
		}
	}
}

// An opener opens a client of each kind that there is; which says on what it agrees.
type opener func(url string) []client

func compress(base, library string, open opener) {
	topic := "clients.compression." + library + "." + base[:3]
	clients := open(base + "/raw/" + topic)
	exchange(clients)
	subscribers := open(base + "/ws")
	publisher := open(base + "/ws?compress=0")
	stream(subscribers, publisher[0], topic)
	for _, list := range [][]client{clients, subscribers, publisher} {
		for _, one := range list {
			one.close()
		}
	}
}
