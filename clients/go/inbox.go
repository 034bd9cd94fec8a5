package stentor

// What has come and was not yet fetched by the program, in bounded memory. One goroutine puts, one takes. What is held is counted in bytes: payloads, and what Go
// needs for an event.

import (
	"fmt"
	"sync"
)

// A WhenSlow is what happens when the program leaves more lying than BufferBytes.
type WhenSlow int

const (
	// Wait: the socket is read no further, until half of it was fetched. Then the server knows that this client is slow, and does what the mode of the
	// subscription says.
	Wait WhenSlow = iota
	// Newest: of each topic only the newest value stays, and what was left out is told by a Gap before it. Of topics that have keyframes, what came since the
	// newest keyframe stays too, as long as there is room.
	Newest
	// Fail: the client ends with "too_slow", once what had come was fetched.
	Fail
)

const (
	// An event without its payload: an Update (144 bytes, on 64 bits), its place in the queue, what an allocation of a payload is rounded up by.
	eventBytes = 200
	// Events handed out at once: few enough that what waits behind them can still be replaced by newer values.
	takenMax = 256
)

type inbox struct {
	bytesMax int
	whenSlow WhenSlow
	// There is something to take, or an end; there is room again. Each is one word at most: who waits looks again.
	news, room chan struct{}

	mutex     sync.Mutex
	events    []Event
	bytes     int
	compactAt int
	isFull    bool
	isEnded   bool
	err       *Error
}

func newInbox(bytesMax int, whenSlow WhenSlow) *inbox {
	return &inbox{bytesMax: bytesMax, whenSlow: whenSlow, compactAt: bytesMax, news: make(chan struct{}, 1), room: make(chan struct{}, 1)}
}

// put takes what has come. Nothing more may be put while it is full, which it says; nor once it has ended, which is an error of its own.
func (i *inbox) put(events []Event, keyed map[string]bool) (isFull bool, tooSlow *Error) {
	i.mutex.Lock()
	defer i.mutex.Unlock()
	if i.isEnded || len(events) == 0 {
		return i.isFull && !i.isEnded, nil
	}
	i.events = append(i.events, events...)
	for _, event := range events {
		i.bytes += cost(event)
	}
	if i.bytes >= i.compactAt {
		switch i.whenSlow {
		case Wait:
			i.isFull = true
		case Fail:
			tooSlow = &Error{Code: "too_slow", Message: fmt.Sprintf("the program has left %d bytes of events lying", i.bytes)}
			i.isEnded, i.err = true, tooSlow
		case Newest:
			i.compact(keyed)
			if i.bytes > i.bytesMax/2 {
				i.compact(nil)
			}
			// Many topics: their newest values may be more than the bound. Each time again would be no work but this.
			i.compactAt = max(i.bytesMax, 2*i.bytes)
		}
	}
	tell(i.news)
	return i.isFull, tooSlow
}

// end: nothing more will come. What is there can still be taken.
func (i *inbox) end(err *Error) {
	i.mutex.Lock()
	defer i.mutex.Unlock()
	if !i.isEnded {
		i.isEnded, i.err = true, err
	}
	tell(i.news)
	tell(i.room)
}

// take gives some of what has come, in order; nothing if there is nothing now, and whether there will be something.
func (i *inbox) take(into []Event) (taken []Event, isOver bool) {
	i.mutex.Lock()
	defer i.mutex.Unlock()
	count := min(len(i.events), takenMax)
	taken = append(into[:0], i.events[:count]...)
	clear(i.events[:count])
	if i.events = i.events[count:]; len(i.events) == 0 {
		i.events = nil // What is before it in memory goes as well.
	}
	for _, event := range taken {
		i.bytes -= cost(event)
	}
	if i.bytes <= i.bytesMax/2 {
		i.compactAt = i.bytesMax
		if i.isFull {
			i.isFull = false
			tell(i.room)
		}
	}
	return taken, i.isEnded && count == 0
}

func (i *inbox) hasRoom() bool {
	i.mutex.Lock()
	defer i.mutex.Unlock()
	return !i.isFull || i.isEnded
}

// compact leaves of each topic the newest value, behind the Gap of what it replaces, behind the newest Reset; and of everything else one of a kind. Of keyed topics
// what came since the newest keyframe stays.
func (i *inbox) compact(keyed map[string]bool) {
	var kept []Event // the newest first
	known := map[string]*stays{}
	others := map[string]bool{}
	of := func(topic string) *stays {
		if known[topic] == nil {
			known[topic] = &stays{topic: topic}
		}
		return known[topic]
	}
	for at := len(i.events) - 1; at >= 0; at-- {
		switch event := i.events[at].(type) {
		case *Update:
			topic := of(event.Topic)
			isChange := keyed[event.Topic] && !topic.hasKey && topic.gap == nil
			switch {
			case topic.reset != nil:
			case topic.oldest == nil || isChange:
				topic.oldest, topic.hasKey = event, event.Key
				kept = append(kept, event)
			default:
				topic.leaveOut(event.Seq, event.Seq, "slow")
			}
		case *Gap:
			topic := of(event.Topic)
			switch {
			case topic.reset != nil:
			case topic.oldest == nil:
				topic.endWith(event)
			default:
				topic.leaveOut(event.First, event.Last, event.Why)
			}
		case *Reset:
			if topic := of(event.Topic); topic.reset == nil {
				topic.reset = event
			}
		case *Error:
			kept = append(kept, event)
		case *Status:
			if kind := fmt.Sprint(event.Code, event.Topics); !others[kind] {
				others[kind] = true
				kept = append(kept, event)
			}
		case mark:
			if !others["mark"] {
				others["mark"] = true
				kept = append(kept, event)
			}
		}
	}
	events := make([]Event, 0, len(kept)+len(known))
	for at := len(kept) - 1; at >= 0; at-- {
		if update, is := kept[at].(*Update); is {
			events = known[update.Topic].begin(events)
		}
		events = append(events, kept[at])
	}
	for _, event := range i.events {
		topic := known[topicOf(event)]
		if topic == nil || topic.isOver {
			continue
		}
		topic.isOver = true
		events = topic.begin(events)
		if topic.behind != nil {
			events = append(events, topic.behind)
		}
	}
	i.events, i.bytes = events, 0
	for _, event := range events {
		i.bytes += cost(event)
	}
}

// stays is what stays of a topic.
type stays struct {
	topic            string
	oldest           *Update // of those that stay
	hasKey           bool
	reset            *Reset
	gap, behind      *Gap
	hasBegun, isOver bool
}

func (s *stays) leaveOut(first, last uint64, why string) {
	if s.gap == nil {
		s.gap = &Gap{s.topic, first, last, why}
		return
	}
	s.gap.First, s.gap.Last = min(first, s.gap.First), max(last, s.gap.Last)
	if why == "slow" {
		s.gap.Why = why
	}
}

// endWith: nothing came behind this yet. What has one kind of gap after the other is told one from the first to the last.
func (s *stays) endWith(gap *Gap) {
	last := gap.Last
	if s.behind != nil {
		last = s.behind.Last
	}
	s.behind = &Gap{s.topic, gap.First, last, gap.Why}
}

// begin tells what is to be told before the first value that stays, once.
func (s *stays) begin(events []Event) []Event {
	if s.hasBegun {
		return events
	}
	s.hasBegun = true
	if s.reset != nil {
		events = append(events, s.reset)
	}
	if gap := s.gap; gap != nil {
		if s.oldest != nil {
			gap.Last = min(gap.Last, before(s.oldest.Seq))
		}
		if gap.Last >= gap.First {
			events = append(events, gap)
		}
	}
	return events
}

func topicOf(event Event) string {
	switch event := event.(type) {
	case *Update:
		return event.Topic
	case *Gap:
		return event.Topic
	case *Reset:
		return event.Topic
	}
	return ""
}

func cost(event Event) int {
	if update, is := event.(*Update); is {
		return eventBytes + len(update.Raw)
	}
	return eventBytes
}

// tell leaves word for who waits, or will.
func tell(word chan struct{}) {
	select {
	case word <- struct{}{}:
	default:
	}
}
