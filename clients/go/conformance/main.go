// This client as the conformance script drives it (clients/conformance/README.md): a line on standard input starts a client or ends it, each thing that it tells is
// a line on standard output. With --next it takes events by Next instead of the channel.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"os"
	"sync"
	"time"

	"stentor"
)

type order struct {
	ID        int    `json:"id"`
	End       bool   `json:"end"`
	URL       string `json:"url"`
	Subscribe []struct {
		Topics []string     `json:"topics"`
		Mode   stentor.Mode `json:"mode"`
		Rate   float64      `json:"rate"`
	} `json:"subscribe"`
	Publish []struct {
		Topic string          `json:"topic"`
		Data  json.RawMessage `json:"data"`
	} `json:"publish"`
	Token []string `json:"token"`
}

type line map[string]any

type driver struct {
	writing sync.Mutex
	mutex   sync.Mutex
	ends    map[int]func()
	isNext  bool
}

func (d *driver) tell(id int, told line) {
	if told == nil {
		return
	}
	told["id"] = id
	text, err := json.Marshal(told)
	if err != nil {
		panic(err)
	}
	d.writing.Lock()
	defer d.writing.Unlock()
	os.Stdout.Write(append(text, '\n'))
}

func lineOf(event stentor.Event) line {
	switch event := event.(type) {
	case *stentor.Update:
		told := line{"update": event.Topic, "seq": event.Seq, "data": event.Raw}
		for name, is := range map[string]bool{"snapshot": event.Snapshot, "key": event.Key, "stale": event.Stale} {
			if is {
				told[name] = true
			}
		}
		return told
	case *stentor.Gap:
		return line{"gap": event.Topic, "first": event.First, "last": event.Last, "why": event.Why}
	case *stentor.Reset:
		return line{"reset": event.Topic, "why": event.Why}
	case *stentor.Status:
		if event.Code == "connected" || event.Code == "lost" {
			return nil
		}
		return line{"status": event.Code, "topics": event.Topics}
	case *stentor.Error:
		return line{"error": event.Code, "topics": event.Names}
	}
	return nil
}

func (d *driver) run(order order) {
	options := stentor.Options{BackoffLeast: 10 * time.Millisecond, BackoffMost: 50 * time.Millisecond}
	if words := order.Token; len(words) == 1 {
		options.Token = words[0]
	} else if len(words) > 1 {
		options.TokenFunc = func(context.Context) (string, error) {
			if len(words) == 0 {
				return "", errors.New("there are no more")
			}
			word := words[0]
			words = words[1:]
			return word, nil
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	client, err := stentor.Connect(ctx, order.URL, options)
	var refused *stentor.Error
	if errors.As(err, &refused) {
		d.tell(order.ID, lineOf(refused))
		d.onEnd(order.ID, func() { d.tell(order.ID, line{"end": true}) })
		return
	}
	d.onEnd(order.ID, client.Close)
	for _, one := range order.Subscribe {
		if err := client.Subscribe(stentor.How{Mode: one.Mode, Rate: one.Rate}, one.Topics...); errors.As(err, &refused) {
			break
		}
	}
	for _, one := range order.Publish {
		publication, err := client.PublishRaw(ctx, one.Topic, one.Data)
		if err == nil {
			go func() {
				var lost *stentor.Error
				if _, err := publication.Wait(context.Background()); errors.As(err, &lost) {
					d.tell(order.ID, lineOf(lost))
				}
			}()
		}
	}
	if d.isNext {
		for {
			event, err := client.Next(context.Background())
			if err != nil {
				break
			}
			d.tell(order.ID, lineOf(event))
		}
	} else {
		for event := range client.Events() {
			d.tell(order.ID, lineOf(event))
		}
	}
	if errors.As(client.Err(), &refused) {
		d.tell(order.ID, lineOf(refused))
	}
	client.Close()
	// It may have ended by itself: the script says when that is to be told.
	d.mutex.Lock()
	_, isAsked := d.ends[-1-order.ID]
	d.ends[order.ID] = func() { d.tell(order.ID, line{"end": true}) }
	d.mutex.Unlock()
	if isAsked {
		d.tell(order.ID, line{"end": true})
	}
}

// onEnd says what is to be done when the script ends a client.
func (d *driver) onEnd(id int, end func()) {
	d.mutex.Lock()
	defer d.mutex.Unlock()
	d.ends[id] = end
}

func (d *driver) end(id int) {
	d.mutex.Lock()
	end := d.ends[id]
	d.ends[-1-id] = nil
	d.mutex.Unlock()
	if end != nil {
		end()
	}
}

func main() {
	d := &driver{ends: map[int]func(){}, isNext: len(os.Args) > 1 && os.Args[1] == "--next"}
	lines := bufio.NewScanner(os.Stdin)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var order order
		if err := json.Unmarshal(lines.Bytes(), &order); err != nil {
			panic(err)
		}
		if order.End {
			go d.end(order.ID)
		} else {
			go d.run(order)
		}
	}
}
