package stentor

import (
	"bytes"
	"encoding/json"
	"fmt"
)

// A publication is a message that says of a topic what most messages do; the slices lie in the message.
type publication struct {
	isUpdate          bool
	topic, epoch, raw []byte
	seq               uint64
	ts                int64
}

var (
	beginUpdate   = []byte(`{"type":"update","topic":"`)
	beginSnapshot = []byte(`{"type":"snapshot","topic":"`)
	beginEpoch    = []byte(`,"epoch":"`)
	beginSeq      = []byte(`,"seq":`)
	beginTS       = []byte(`,"ts":`)
	beginData     = []byte(`,"data":`)
)

// publicationOf takes apart a publication as nearly all are written. Those that have other fields, or others' order, are taken apart the long way. data is
// the last field.
func publicationOf(message []byte) (found publication, ok bool) {
	rest := message
	if after, is := bytes.CutPrefix(rest, beginUpdate); is {
		found.isUpdate, rest = true, after
	} else if rest, is = bytes.CutPrefix(rest, beginSnapshot); !is {
		return found, false
	}
	if found.topic, rest, ok = word(rest); !ok {
		return found, false
	}
	if after, is := bytes.CutPrefix(rest, beginEpoch); is {
		if found.epoch, rest, ok = word(after); !ok {
			return found, false
		}
	}
	var ts uint64
	if found.seq, rest, ok = digits(rest, beginSeq); !ok {
		return found, false
	}
	if ts, rest, ok = digits(rest, beginTS); !ok {
		return found, false
	}
	found.ts = int64(ts)
	rest, ok = bytes.CutPrefix(rest, beginData)
	if !ok || len(rest) < 2 || rest[len(rest)-1] != '}' {
		return found, false
	}
	found.raw = rest[:len(rest)-1]
	return found, true
}

// word takes a string without escapes, up to its end.
func word(text []byte) (word, rest []byte, ok bool) {
	end := bytes.IndexByte(text, '"')
	if end < 1 || bytes.IndexByte(text[:end], '\\') >= 0 {
		return nil, nil, false
	}
	return text[:end], text[end+1:], true
}

// digits takes a number of at most 18 digits behind what it begins with.
func digits(text, begin []byte) (number uint64, rest []byte, ok bool) {
	rest, ok = bytes.CutPrefix(text, begin)
	if !ok {
		return 0, nil, false
	}
	at := 0
	for at < len(rest) && at < 19 && rest[at] >= '0' && rest[at] <= '9' {
		number = number*10 + uint64(rest[at]-'0')
		at++
	}
	return number, rest[at:], at > 0 && at < 19
}

// fields are those of a message. What is missing, or isn't what it should be, is err, the first of all.
type fields struct {
	all map[string]json.RawMessage
	err error
}

func (f *fields) has(name string) bool {
	_, has := f.all[name]
	return has
}

// get parses a field; if it may be missing, into leaves what it was.
func (f *fields) get(name string, into any, isNeeded bool) {
	raw, has := f.all[name]
	if !has && !isNeeded || f.err != nil {
		return
	}
	if !has {
		f.err = fmt.Errorf("there is no %s", name)
	} else if err := json.Unmarshal(raw, into); err != nil {
		f.err = fmt.Errorf("%s: %w", name, err)
	}
}

func (f *fields) text(name string) (said string) {
	f.get(name, &said, true)
	return said
}

func (f *fields) maybe(name string) (said string) {
	f.get(name, &said, false)
	return said
}

func (f *fields) number(name string) (number uint64) {
	f.get(name, &number, true)
	return number
}

func (f *fields) flag(name string) bool {
	return string(f.all[name]) == "true"
}

// A window is a time in which the server wants one back, in milliseconds: two numbers, or one that is its end.
type window struct{ first, last float64 }

func (f *fields) window(name string) *window {
	raw, has := f.all[name]
	if !has || f.err != nil {
		return nil
	}
	var two []float64
	if json.Unmarshal(raw, &two) == nil && len(two) == 2 {
		return &window{two[0], two[1]}
	}
	var last float64
	f.get(name, &last, true)
	return &window{0, last}
}

// A hello is the server's greeting.
type hello struct {
	server    string
	heartbeat float64
	limits    limits
}

type limits struct {
	Topics  int `json:"topics"`
	Message int `json:"message"`
}

func helloOf(f *fields) *hello {
	// What a server that says nothing else allows: names of one connection, bytes of one message.
	found := &hello{server: f.maybe("server"), limits: limits{Topics: 1024, Message: 65_536}}
	f.get("heartbeat", &found.heartbeat, false)
	f.get("limits", &found.limits, false)
	// Less would leave no room for a name and what is around it.
	found.limits.Message = max(found.limits.Message, 2*commandBytes)
	return found
}

// An entry is what an ack says of a name.
type entry struct {
	Subscribed
	Topic string  `json:"topic"`
	Epoch *string `json:"epoch"`
	Seq   uint64  `json:"seq"`
}
