package stentor

// The protocol as a client sees it, without sockets, goroutines or clocks: messages in, events and commands out.
//
// It keeps what the program wants, and for each topic seen where it stands (topics.go). With this every number is accounted for: what comes twice is told once, what
// is missing is fetched, or told.
//
// After a loss everything is asked for again. In mode "all" topics go on where they were left: all at once, if the server gives cursors, else each by its own
// point, as many as the server lets one name. A ping goes behind it, and its answer comes behind all snapshots: a topic that nothing was heard of until then can't be
// continued, and is told as a Reset. What the new server numbers otherwise is a Reset too, and never a Gap.
//
// Memory: one small record for each topic, up to TopicsMax, and what waits for its answer.

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
)

// Of a command that carries many names, what isn't names.
const commandBytes = 256

// answered is told what the answer to a command was, or that there will be none. It returns why the connection is of no use, if that is so.
type answered func(answer *fields, err *Error) error

type core struct {
	topics *topics
	emit   func(Event)
	send   func([]byte)
	// When, behind a greeting, all snapshots have come.
	synced func()
	asked  map[uint64]answered
	asking uint64
	calls  int // of subscribe
	// The greeting, while there is a connection.
	hello *hello
	// Up to here everything has come, if the server says so.
	cursor string
	// In which the server wants us back.
	window *window
	// What the last message about its end was.
	farewell string
	// The server has asked for another token.
	expiring bool
	// Behind a greeting, until all snapshots have come.
	syncing bool
}

func newCore(emit func(Event), send func([]byte), topicsMax int, synced func()) *core {
	return &core{
		topics: &topics{emit: emit, placesMax: topicsMax, wants: map[string]*want{}, places: map[string]*place{}, keyed: map[string]bool{}},
		emit:   emit, send: send, synced: synced, asked: map[uint64]answered{},
	}
}

// ---- What the program says -------------------------------------------------------------------------------------------------------------------------------------

func (c *core) subscribe(names []string, how How) error {
	var wants []*want
	c.calls++
	for _, name := range names {
		asked := &want{name: name, how: how, call: c.calls}
		if known := c.topics.wants[name]; known != nil {
			asked.agreed, asked.isOld, asked.isTold, asked.knowsAll = known.agreed, known.isOld, known.isTold, known.knowsAll
		}
		c.topics.add(asked)
		wants = append(wants, asked)
	}
	c.topics.listPatterns()
	if c.hello == nil || len(wants) == 0 {
		return nil
	}
	c.askFor(wants, 0, false)
	return c.ask(map[string]any{"op": "ping"}, func(_ *fields, err *Error) error {
		if err == nil {
			c.know(wants)
		}
		return nil
	})
}

func (c *core) unsubscribe(names []string) {
	var ended []*want
	for _, name := range names {
		if want := c.topics.wants[name]; want != nil {
			ended = append(ended, want)
		}
	}
	c.topics.end(ended)
	if c.hello != nil {
		c.leave(namesOf(ended))
	}
}

func (c *core) publish(topic string, raw []byte, told func(Receipt, *Error)) {
	if c.hello == nil {
		told(Receipt{}, errDisconnected("there is no connection now"))
		return
	}
	name, _ := json.Marshal(topic)
	c.asking++
	message := make([]byte, 0, len(raw)+len(name)+64)
	message = strconv.AppendUint(append(message, `{"op":"pub","id":`...), c.asking, 10)
	message = append(append(message, `,"topic":`...), name...)
	message = append(append(append(message, `,"data":`...), raw...), '}')
	if most := c.hello.limits.Message; len(message) > most {
		told(Receipt{}, &Error{Code: "too_large", Message: fmt.Sprintf("the message is of %d bytes, the server takes %d", len(message), most)})
		return
	}
	c.asked[c.asking] = func(answer *fields, err *Error) error {
		if err != nil {
			told(Receipt{}, err)
			return nil
		}
		receipt := Receipt{Topic: answer.text("topic"), Seq: answer.number("seq")}
		answer.get("ts", &receipt.TS, true)
		told(receipt, nil)
		return answer.err
	}
	c.send(message)
}

// ask sends any command; the answer, or that there will be none, is told.
func (c *core) ask(command map[string]any, told answered) error {
	if c.hello == nil {
		return told(nil, errDisconnected("there is no connection now"))
	}
	c.asking++
	c.asked[c.asking] = told
	command["id"] = c.asking
	text, err := json.Marshal(command)
	if err != nil {
		return err
	}
	c.send(text)
	return nil
}

func errDisconnected(why string) *Error { return &Error{Code: "disconnected", Message: why} }

// ---- What the connection says ----------------------------------------------------------------------------------------------------------------------------------

// lost: the connection is gone.
func (c *core) lost() {
	c.hello, c.expiring = nil, false
	c.topics.lost()
	if c.topics.hasGap {
		c.topics.hasGap, c.cursor = false, "" // It may be behind what is missing.
	}
	asked := c.asked
	c.asked = map[uint64]answered{}
	for _, told := range asked {
		_ = told(nil, errDisconnected("the connection ended before the answer came"))
	}
}

// read takes one message, which it doesn't keep. An error says that no more of this connection is to be read.
func (c *core) read(message []byte) error {
	found, ok := publicationOf(message)
	if !ok || c.hello == nil {
		return c.readAny(message)
	}
	raw := append(make([]byte, 0, len(found.raw)), found.raw...)
	place := c.topics.places[string(found.topic)]
	if found.isUpdate && found.epoch == nil && place != nil && place.hasSeq && !place.before {
		if found.seq == place.seq+1 || found.seq > place.seq && !place.gapless {
			place.seq = found.seq
			c.emit(&Update{Topic: place.topic, Seq: found.seq, TS: found.ts, Epoch: place.epoch, Raw: raw})
			return nil
		}
	}
	topic, epoch := string(found.topic), string(found.epoch)
	if found.isUpdate {
		known := epoch
		if known == "" && place != nil {
			known = place.epoch
		}
		return c.topics.arrive(topic, found.seq, found.seq, epoch, &Update{Topic: topic, Seq: found.seq, TS: found.ts, Epoch: known, Raw: raw})
	}
	if epoch == "" {
		return &broken{"a snapshot without its epoch"}
	}
	c.topics.stand(topic, found.seq, found.seq, epoch, &Update{Topic: topic, Seq: found.seq, TS: found.ts, Epoch: epoch, Raw: raw, Snapshot: true})
	return nil
}

func (c *core) readAny(text []byte) error {
	message := &fields{}
	kind := ""
	if err := json.Unmarshal(text, &message.all); err == nil {
		kind = message.text("type")
	}
	if kind == "" || message.err != nil {
		return &broken{"the server sent what is not a message"}
	}
	err := c.dispatch(kind, message)
	if message.err != nil {
		return &broken{fmt.Sprintf("a %s that lacks what it should have: %v", kind, message.err)}
	}
	return err
}

func (c *core) dispatch(kind string, message *fields) (err error) {
	if kind == "hello" {
		return c.greet(message)
	}
	if c.hello == nil {
		if kind == "error" {
			c.farewell = message.text("message")
		}
		return nil
	}
	switch kind {
	case "update", "snapshot":
		update := c.published(kind, message)
		if message.err != nil {
			return nil
		}
		if kind == "update" {
			return c.topics.arrive(update.Topic, update.Seq, update.Seq, message.maybe("epoch"), update)
		}
		c.topics.stand(update.Topic, update.Seq, update.Seq, message.text("epoch"), update)
	case "ack", "pong", "subscriptions":
		var id uint64
		message.get("id", &id, false)
		if told := c.asked[id]; told != nil {
			delete(c.asked, id)
			err = told(message, nil)
		}
	case "error":
		err = c.refused(message)
	case "skip":
		gap := &Gap{message.text("topic"), message.number("from"), message.number("to"), message.maybe("why")}
		if message.err == nil {
			err = c.topics.skip(gap, message.maybe("epoch"))
		}
	case "reset":
		reset := &Reset{message.text("topic"), message.text("epoch"), message.number("seq"), message.maybe("why")}
		if message.err == nil {
			c.topics.reset(reset)
		}
	case "status":
		c.status(message)
	}
	if kind == "pong" || kind == "heartbeat" {
		if cursor := message.maybe("cursor"); cursor != "" && err == nil {
			c.mark(cursor)
		}
	}
	return err
}

// mark: everything up to a place has come; of names whose last values have, too.
func (c *core) mark(cursor string) {
	if cursor == c.cursor {
		return
	}
	for _, want := range c.topics.order {
		if !want.isTold {
			return
		}
	}
	c.cursor = cursor
	c.emit(mark{cursor})
}

func (c *core) greet(message *fields) error {
	c.hello = helloOf(message)
	c.farewell, c.window = "", nil
	c.emit(&Status{Code: "connected", Message: c.hello.server})
	wants := append([]*want(nil), c.topics.order...)
	c.topics.byCursor, c.topics.isVoid = false, false
	var kinds []together
	groups := map[together][]*want{}
	for _, want := range wants {
		kind := want.together()
		if groups[kind] == nil {
			kinds = append(kinds, kind)
		}
		groups[kind] = append(groups[kind], want)
	}
	room := c.hello.limits.Topics - len(wants)
	c.syncing = len(wants) > 0
	for _, kind := range kinds {
		room -= c.askFor(groups[kind], room, true)
	}
	if len(wants) == 0 {
		return nil
	}
	return c.askSynced(wants)
}

// askSynced asks for a sign that all snapshots have come.
func (c *core) askSynced(wants []*want) error {
	return c.ask(map[string]any{"op": "ping"}, func(_ *fields, err *Error) error {
		if err != nil {
			return nil
		}
		c.know(wants)
		// Of what was asked for again, another ping is behind it.
		if c.syncing && !slices.ContainsFunc(wants, func(want *want) bool { return want.again && c.topics.wants[want.name] == want }) {
			c.syncing = false
			c.topics.settle()
			c.synced()
		}
		return nil
	})
}

func (c *core) refused(message *fields) error {
	err := &Error{Code: message.text("code"), Message: message.maybe("message")}
	message.get("topics", &err.Names, false)
	if message.err != nil {
		return nil
	}
	if window := message.window("retry_ms"); window != nil {
		c.window = window
	}
	var id uint64
	message.get("id", &id, false)
	if id == 0 && (err.Code == "bad_json" || err.Code == "bad_command") {
		for asked := range c.asked { // Answers come in order, and all that we say has an id: it couldn't be read.
			if id == 0 || asked < id {
				id = asked
			}
		}
	}
	if told := c.asked[id]; told != nil {
		delete(c.asked, id)
		return told(nil, err)
	}
	if ended := c.topics.wants[message.maybe("topic")]; ended != nil {
		// Rights that have become less don't cover it any more; the others go on.
		c.topics.end([]*want{ended})
		c.emit(&Error{err.Code, err.Message, []string{ended.name}})
		return nil
	}
	c.farewell = err.Message
	if err.Code != "unauthorized" && err.Code != "replaced" {
		c.emit(&Status{Code: err.Code, Message: err.Message})
	}
	return nil
}

func (c *core) status(message *fields) {
	status := &Status{Code: message.text("code"), Message: message.maybe("message")}
	message.get("topics", &status.Topics, false)
	message.get("since", &status.Since, false)
	if window := message.window("retry_ms"); window != nil {
		c.window = window
	}
	if message.err != nil {
		return
	}
	c.expiring = c.expiring || status.Code == "token_expiring"
	c.emit(status)
}

// ---- Subscribing -----------------------------------------------------------------------------------------------------------------------------------------------

// askFor asks for names that go in one command, or some; after a loss (isBack) from where their topics were left. Topics that a pattern brought are named for that,
// and only until the server has answered: at most room of them. It says how many these are.
func (c *core) askFor(wants []*want, room int, isBack bool) int {
	first := wants[0]
	cursor := first.how.Cursor
	var extra []string
	points := map[string]Point{}
	if isBack && first.isOld && first.how.mode() == All {
		cursor = ""
		if first.isTold {
			cursor = c.cursor
		}
		if cursor == "" {
			extra, points = c.topics.left(wants, room)
		} else {
			c.topics.byCursor = true
		}
	}
	for _, want := range wants {
		for topic, point := range want.how.Points {
			if _, has := points[topic]; !has {
				points[topic] = point
				if c.topics.wants[topic] == nil {
					extra = append(extra, topic)
				}
			}
		}
	}
	misses := false
	for _, want := range wants {
		misses = misses || want.misses && cursor == ""
	}
	names := append(append([]string(nil), extra...), namesOf(wants)...)
	parts := split(names, points, c.hello.limits.Message-commandBytes)
	for nth, part := range parts {
		command := map[string]any{"op": "sub", "mode": first.how.mode(), "topics": part.names}
		if first.how.Rate != 0 {
			command["rate"] = first.how.Rate
		}
		if first.how.NoSnapshot {
			command["snapshot"] = false
		}
		if cursor != "" {
			command["from"] = cursor
		} else if len(part.points) > 0 {
			from := map[string]any{}
			for topic, point := range part.points {
				from[topic] = []any{point.Epoch, point.Seq}
			}
			command["from"] = from
		}
		var done []string
		if nth == len(parts)-1 {
			done = extra
		}
		_ = c.ask(command, func(answer *fields, err *Error) error {
			if err == nil {
				return c.taken(wants, part.points, cursor, answer, misses, done)
			}
			return c.notTaken(wants, part.names, err)
		})
	}
	return len(extra)
}

func (c *core) taken(wants []*want, points map[string]Point, cursor string, answer *fields, misses bool, done []string) error {
	// The answer says where it begins: elsewhere, if the cursor was good no more.
	if begins := answer.maybe("cursor"); cursor != "" && begins != "" && begins != cursor {
		c.topics.isVoid = true
	}
	var list []entry
	answer.get("topics", &list, false)
	if answer.err != nil {
		return nil
	}
	entries := map[string]entry{}
	for _, entry := range list {
		entries[entry.Topic] = entry
	}
	var mine, anew []*want
	for _, want := range wants {
		if _, has := entries[want.name]; !has || c.topics.wants[want.name] != want {
			continue
		}
		mine = append(mine, want)
		// What came so far may have had holes, if it wasn't mode "all".
		if want.agreed == nil || want.agreed.Mode != All {
			anew = append(anew, want)
		}
	}
	c.topics.startAnew(anew, points)
	for _, want := range mine {
		agreed := entries[want.name].Subscribed
		if agreed.Mode == "" {
			agreed.Mode = want.how.mode()
		}
		want.agreed, want.isOld, want.misses, want.again = &agreed, true, false, false
		want.how.Cursor, want.how.Points = "", nil
	}
	c.topics.wasAway = misses
	c.topics.measure(mine)
	for _, entry := range list {
		if entry.Epoch != nil {
			point, isResumed := points[entry.Topic]
			c.topics.acknowledged(entry.Topic, *entry.Epoch, entry.Seq, point, isResumed)
		}
	}
	var others []string
	for _, topic := range done {
		if c.topics.wants[topic] == nil {
			others = append(others, topic)
		}
	}
	c.leave(others)
	return nil
}

// notTaken: a command for some of the wants, these names, was refused.
func (c *core) notTaken(wants []*want, names []string, err *Error) error {
	if err.Code == "disconnected" {
		return nil
	}
	var uncovered, others []*want
	for _, want := range wants {
		if c.topics.wants[want.name] != want {
			continue
		}
		if slices.Contains(err.Names, want.name) {
			uncovered = append(uncovered, want)
		} else if slices.Contains(names, want.name) {
			others = append(others, want)
		}
	}
	if len(uncovered) > 0 {
		return c.narrow(uncovered, others, err)
	}
	var mine, ended []*want
	for _, want := range wants {
		// A name that was taken before will be taken again: such refusals are about this moment.
		isPassing := err.Code == "server_full" || err.Code == "address_full" || err.Code == "draining"
		if isPassing && want.isOld && want.agreed == nil {
			return &broken{err.Error()}
		}
		if c.topics.wants[want.name] == want {
			mine = append(mine, want)
		}
	}
	if slices.ContainsFunc(wants, func(want *want) bool { return want.call != wants[0].call }) {
		// One name is to blame, and others mustn't end with it: on the next connection each call is asked for by itself.
		for _, want := range wants {
			want.alone = want.call
		}
		return &broken{err.Error()}
	}
	for _, want := range mine {
		if want.agreed != nil {
			want.how.Mode, want.how.Rate = want.agreed.Mode, want.agreed.Rate
		} else {
			ended = append(ended, want)
		}
	}
	c.topics.end(ended)
	c.leave(namesOf(ended)) // Some may have been taken, if it took several commands.
	if len(mine) > 0 {
		c.emit(&Error{err.Code, err.Message, namesOf(mine)})
	}
	return nil
}

// narrow: rights don't cover some names of a command. They end, and the others are asked for again.
func (c *core) narrow(uncovered, others []*want, err *Error) error {
	var agreed []*want
	for _, want := range uncovered {
		if want.agreed != nil {
			agreed = append(agreed, want)
		}
	}
	c.topics.end(uncovered)
	c.leave(namesOf(agreed))
	c.emit(&Error{err.Code, err.Message, namesOf(uncovered)})
	for _, want := range others {
		if want.isOld && want.agreed == nil {
			return &broken{err.Error()} // They go on where they were, with all that belongs to that: on the next connection.
		}
	}
	if len(others) == 0 {
		return nil
	}
	for _, want := range others {
		want.again = true
	}
	c.askFor(others, 0, false)
	if c.syncing {
		others = append([]*want(nil), c.topics.order...)
	}
	return c.askSynced(others)
}

func (c *core) leave(names []string) {
	if len(names) == 0 {
		return
	}
	for _, part := range split(names, nil, c.hello.limits.Message-commandBytes) {
		_ = c.ask(map[string]any{"op": "unsub", "topics": part.names}, func(*fields, *Error) error { return nil })
	}
}

// know: the last values of these have come.
func (c *core) know(wants []*want) {
	c.topics.wasAway = false
	for _, want := range wants {
		if want.again {
			continue // Another ping is behind it.
		}
		want.isTold = true
		want.knowsAll = !want.how.NoSnapshot && !c.topics.hasForgotten
	}
}

func namesOf(wants []*want) []string {
	names := make([]string, len(wants))
	for at, want := range wants {
		names[at] = want.name
	}
	return names
}

// ---- Publications ----------------------------------------------------------------------------------------------------------------------------------------------

func (c *core) published(kind string, message *fields) *Update {
	update := &Update{
		Topic:    message.text("topic"),
		Seq:      message.number("seq"),
		Epoch:    message.maybe("epoch"),
		Snapshot: kind == "snapshot",
		Key:      message.flag("key"),
		Stale:    message.flag("stale"),
		Binary:   message.has("base64"),
	}
	message.get("ts", &update.TS, true)
	if update.Epoch == "" {
		update.Epoch = c.topics.epoch(update.Topic)
	}
	if update.Binary {
		var err error
		if update.Raw, err = bytesOf(message.text("base64")); err != nil && message.err == nil {
			message.err = err
		}
	} else if update.Raw = message.all["data"]; update.Raw == nil && message.err == nil {
		message.err = errors.New("there is no data")
	}
	return update
}
