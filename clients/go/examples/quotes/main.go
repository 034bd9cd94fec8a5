// Quotes keeps the newest quotes of the simulated market (stentor --demo), and says what it was not told.
//
//	go run ./examples/quotes [URL]
package main

import (
	"context"
	"fmt"
	"log"
	"os"
	"os/signal"

	"stentor"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	url := "ws://127.0.0.1:9001/ws"
	if len(os.Args) > 1 {
		url = os.Args[1]
	}
	md, err := stentor.Connect(ctx, url, stentor.Options{})
	if err != nil {
		log.Fatal(err)
	}
	defer md.Close()
	if err := md.Subscribe(stentor.How{Mode: stentor.Latest, Rate: 4}, "q.demo.*"); err != nil {
		log.Fatal(err)
	}

	type quote struct{ Bid, Ask float64 }
	quotes := map[string]quote{}
	for {
		event, err := md.Next(ctx)
		if err != nil {
			log.Print(err) // Ctrl-C; or the server does not want us
			return
		}
		switch event := event.(type) {
		case *stentor.Update:
			var now quote
			if event.Decode(&now) == nil {
				quotes[event.Topic] = now
				fmt.Println(event.Topic, now.Bid, now.Ask)
			}
		case *stentor.Gap:
			fmt.Printf("%s: %d to %d are not coming: %s\n", event.Topic, event.First, event.Last, event.Why)
		case *stentor.Reset:
			delete(quotes, event.Topic)
		case *stentor.Error:
			log.Print(event)
		}
	}
}
