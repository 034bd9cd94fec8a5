package stentor

import (
	"encoding/base64"
	"encoding/json"
	"strings"
	"time"
)

// An Event is what a program is told: *Update, *Gap, *Reset, *Status, or *Error for what the server refuses.
type Event interface{ event() }

// An Update is a publication, or a topic's last value.
type Update struct {
	Topic string
	// The number of the publication within its topic.
	Seq uint64
	// When the server took it in, in microseconds since the Unix epoch.
	TS int64
	// Which numbering Seq belongs to; empty as long as nobody has told.
	Epoch string
	// The payload byte for byte as it was published: JSON, of which a text is a string too; or bytes, if it is Binary.
	Raw json.RawMessage
	// A last value, not something new.
	Snapshot bool
	// A keyframe: says everything about its topic. What follows may be changes to it.
	Key bool
	// A last value whose source is known to be gone.
	Stale bool
	// Raw was published as bytes.
	Binary bool
}

// Decode parses the payload into what v points to, as encoding/json does.
func (u *Update) Decode(v any) error { return json.Unmarshal(u.Raw, v) }

// Time is when the server took the publication in.
func (u *Update) Time() time.Time { return time.UnixMicro(u.TS) }

// A Gap says that the publications First to Last of a topic are not coming. What is built of changes is not good any more.
type Gap struct {
	Topic       string
	First, Last uint64
	// "slow": this program, or its connection, was; "too_large": nobody could be sent it; "reconnect": they came while there was no connection, and the
	// server has them no more; "missing": they didn't come, and weren't there when they were asked for again.
	Why string
}

// A Reset says that a topic can't be continued where it was left: what is known of it is to be dropped. What follows, if it has a value, begins anew.
type Reset struct {
	Topic string
	// Its numbering now, if that is known.
	Epoch string
	// It goes on behind this number.
	Seq uint64
	// "epoch": the numbering has begun anew, as by a restart; "history": too long ago; "cursor": the place that one stood at is good no more, for either
	// reason; "reconnect": this client has found so after a loss.
	Why string
}

// A Status is something to know of the connection, or of the sources of topics.
type Status struct {
	// "connected", "lost", and "gap" (numbers are missing that should have come: they are being fetched on another connection) from this client; "draining",
	// "stale", "fresh", "token_expiring" and whatever comes later from the server, also errors that answer nothing, such as "lagged".
	Code string
	// The names that it is about, if it is about some.
	Topics []string
	// Since when, in microseconds since the Unix epoch; 0 if it isn't said.
	Since int64
	// In words, where there are any.
	Message string
}

// An Error is what the server, or this client, refused. Code is for programs and stays the same: the protocol's, or one of these: "unreachable", "refused"
// (before there was a WebSocket), "disconnected" (nobody knows whether a publication was taken), "closed", "too_slow" (the program is, and has chosen to be told
// so).
type Error struct {
	Code    string
	Message string
	// What was refused, if it was subscriptions.
	Names []string
}

func (e *Error) Error() string { return e.Code + ": " + e.Message }

func (*Update) event() {}
func (*Gap) event()    {}
func (*Reset) event()  {}
func (*Status) event() {}
func (*Error) event()  {}

// A mark stands between two events, for this client alone: up to here everything has come, as the server says.
type mark struct{ cursor string }

func (mark) event() {}

// A Receipt says that the server took a publication in.
type Receipt struct {
	Topic string `json:"topic"`
	Seq   uint64 `json:"seq"`
	// Microseconds since the Unix epoch.
	TS int64 `json:"ts"`
}

// A Subscribed is how the server agreed to send what a name stands for.
type Subscribed struct {
	Mode Mode    `json:"mode"`
	Rate float64 `json:"rate"`
	// Seconds that its publications come late, where one's rights say so.
	Delayed float64 `json:"delayed"`
}

// bytesOf is the payload of a binary publication.
func bytesOf(text string) ([]byte, error) {
	return base64.StdEncoding.DecodeString(strings.TrimSpace(text))
}
