// Bench measures updates a second, CPU per update and memory of this client, by its channel and by Next, beside coder/websocket with encoding/json by hand.
//
//	STENTOR=target/release/stentor go run ./bench [-updates 200000] [-topics 1000] [-rounds 3] [-raw FILE]
//
// Each round starts a server and a subscriber in a process of its own, publishes, and measures from the first update that comes to the last. Subscribers parse each
// payload into a struct, and look at a field.
package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"log"
	"net/http"
	"os"
	"os/exec"
	"regexp"
	"runtime"
	"slices"
	"syscall"
	"time"

	"github.com/coder/websocket"

	"stentor"
)

const payload = `{"bid":189.21,"ask":189.23,"bidsz":300,"asksz":1200,"venue":"XNAS","flags":["r","x"]}`

var (
	updates    = flag.Int("updates", 200_000, "in a round")
	topics     = flag.Int("topics", 1000, "that they are on")
	rounds     = flag.Int("rounds", 3, "")
	raw        = flag.String("raw", "", "a file for what was measured, as JSON")
	subscriber = flag.String("subscriber", "", "")
	url        = flag.String("url", "", "")
)

type quote struct {
	Bid, Ask     float64
	BidSz, AskSz int
	Venue        string
	Flags        []string
}

type result struct {
	UpdatesPerS float64 `json:"updates_per_s"`
	CPUUs       float64 `json:"cpu_us"`
	RSSMiB      float64 `json:"rss_mib"`
}

// A clock runs from the first update on.
type clock struct {
	left  int
	began time.Time
	cpu   time.Duration
}

func (c *clock) tick(data []byte) (isLast bool) {
	var quote quote
	if err := json.Unmarshal(data, &quote); err != nil || quote.Bid == 0 {
		log.Fatal(err, quote)
	}
	if c.began.IsZero() {
		c.left, c.began, c.cpu = *updates, time.Now(), cpu()
	}
	c.left--
	return c.left == 0
}

func (c *clock) result() result {
	used := cpu() - c.cpu
	var usage syscall.Rusage
	must(syscall.Getrusage(syscall.RUSAGE_SELF, &usage))
	return result{float64(*updates) / time.Since(c.began).Seconds(), float64(used.Nanoseconds()) / 1000 / float64(*updates), float64(usage.Maxrss) / 1024}
}

func cpu() time.Duration {
	var usage syscall.Rusage
	must(syscall.Getrusage(syscall.RUSAGE_SELF, &usage))
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}

func must(err error) {
	if err != nil {
		log.Fatal(err)
	}
}

func ready() { fmt.Println("ready") }

func connected() *stentor.Client {
	client, err := stentor.Connect(context.Background(), *url, stentor.Options{NoCompression: true})
	must(err)
	must(client.Subscribe(stentor.How{}, "b.*"))
	_, err = client.Ping(context.Background())
	must(err)
	ready()
	return client
}

var variants = []struct {
	name string
	run  func(*clock)
}{
	{"channel", func(clock *clock) {
		for event := range connected().Events() {
			if update, is := event.(*stentor.Update); is && clock.tick(update.Raw) {
				return
			}
		}
	}},
	{"next", func(clock *clock) {
		client := connected()
		for {
			event, err := client.Next(context.Background())
			must(err)
			if update, is := event.(*stentor.Update); is && clock.tick(update.Raw) {
				return
			}
		}
	}},
	{"coder/websocket", func(clock *clock) {
		ctx := context.Background()
		socket, _, err := websocket.Dial(ctx, *url, nil)
		must(err)
		must(socket.Write(ctx, websocket.MessageText, []byte(`{"op":"sub","topics":["b.*"]}`)))
		for {
			_, text, err := socket.Read(ctx)
			must(err)
			var message struct {
				Type, Topic string
				Seq         uint64
				TS          int64
				Data        json.RawMessage
			}
			must(json.Unmarshal(text, &message))
			if message.Type == "ack" {
				ready()
			} else if message.Type == "update" && clock.tick(message.Data) {
				return
			}
		}
	}},
}

func measure(variant string) (found result) {
	server := exec.Command(os.Getenv("STENTOR"), "--listen", "127.0.0.1:0", "--workers", "1", "--retain", "512MiB")
	said, err := server.StderrPipe()
	must(err)
	must(server.Start())
	defer func() {
		must(server.Process.Kill())
		_ = server.Wait()
	}()
	port := ""
	for lines := bufio.NewScanner(said); port == "" && lines.Scan(); {
		if match := regexp.MustCompile(`listening on http://127\.0\.0\.1:(\d+)/`).FindStringSubmatch(lines.Text()); match != nil {
			port = match[1]
		}
	}
	client := exec.Command(os.Args[0], "-subscriber", variant, "-url", "ws://127.0.0.1:"+port+"/ws", "-updates", fmt.Sprint(*updates))
	client.Stderr = os.Stderr
	answers, err := client.StdoutPipe()
	must(err)
	must(client.Start())
	lines := bufio.NewScanner(answers)
	if !lines.Scan() || lines.Text() != "ready" {
		log.Fatal(variant, " did not subscribe")
	}
	for first := 0; first < *updates; first += 2000 {
		var text bytes.Buffer
		for n := first; n < min(first+2000, *updates); n++ {
			fmt.Fprintf(&text, "{\"topic\":\"b.%d\",\"data\":%s}\n", n%*topics, payload)
		}
		answer, err := http.Post("http://127.0.0.1:"+port+"/publish", "application/x-ndjson", &text)
		must(err)
		answer.Body.Close()
	}
	lines.Scan()
	must(json.Unmarshal(lines.Bytes(), &found))
	must(client.Wait())
	return found
}

func main() {
	flag.Parse()
	if *subscriber != "" {
		for _, variant := range variants {
			if variant.name == *subscriber {
				clock := &clock{}
				variant.run(clock)
				must(json.NewEncoder(os.Stdout).Encode(clock.result()))
			}
		}
		return
	}
	found := map[string][]result{}
	for range *rounds {
		for _, variant := range variants {
			found[variant.name] = append(found[variant.name], measure(variant.name))
		}
	}
	for _, variant := range variants {
		median := func(field func(result) float64) float64 {
			var all []float64
			for _, one := range found[variant.name] {
				all = append(all, field(one))
			}
			slices.Sort(all)
			return all[len(all)/2]
		}
		fmt.Printf("%-16s %9.0f updates/s  %5.2f us CPU each  %4.0f MiB\n", variant.name, median(func(r result) float64 { return r.UpdatesPerS }),
			median(func(r result) float64 { return r.CPUUs }), median(func(r result) float64 { return r.RSSMiB }))
	}
	if *raw != "" {
		text, err := json.MarshalIndent(map[string]any{"go": runtime.Version(), "updates": *updates, "topics": *topics, "rounds": found}, "", " ")
		must(err)
		must(os.WriteFile(*raw, text, 0o644))
	}
}
