// Publish publishes the lines of standard input, which are JSON, on a topic, as fast as the server takes them.
//
//	go run ./examples/publish URL TOPIC
package main

import (
	"bufio"
	"context"
	"log"
	"os"

	"stentor"
)

func main() {
	if len(os.Args) != 3 {
		log.Fatal("expected an address and a topic")
	}
	ctx := context.Background()
	md, err := stentor.Connect(ctx, os.Args[1], stentor.Options{})
	if err != nil {
		log.Fatal(err)
	}
	defer md.Close()
	// Answers come in the order of the lines.
	published := make(chan *stentor.Publication, 1000)
	counted := make(chan int)
	go func() {
		taken := 0
		for publication := range published {
			if receipt, err := publication.Wait(ctx); err != nil {
				log.Print(err)
			} else {
				log.Printf("%s %d", receipt.Topic, receipt.Seq)
				taken++
			}
		}
		counted <- taken
	}()
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		publication, err := md.PublishRaw(ctx, os.Args[2], []byte(lines.Text())) // waits while 1,000 have no answer
		if err != nil {
			log.Fatal(err)
		}
		published <- publication
	}
	close(published)
	log.Printf("%d were taken", <-counted)
}
