package stentor

// Where each topic stands: what it is numbered by, which number came last, and what an arriving number therefore is: the next, one had before, one behind a gap,
// or the first of something new.

import "fmt"

// broken says that a connection is of no use any more.
type broken struct{ why string }

func (b *broken) Error() string { return b.why }

// A want is a name that the program has subscribed to.
type want struct {
	name string
	how  How
	// Which call of the program's it came with; and the same, once names of other calls must not go in one command with it.
	call, alone int
	// What the server has agreed to, on this connection.
	agreed *Subscribed
	// It was asked for again, on this connection, without those that it was refused with: what was asked before says nothing of it.
	again bool
	// A server has agreed to it before.
	isOld bool
	// Its last values have come.
	isTold bool
	// All topics that there were have been heard of: those that are not known are new.
	knowsAll bool
	// Every publication was to come, and the connection was lost: what came into being meanwhile is missing.
	misses bool
}

// together is what has to be the same for names to go in one command.
type together struct {
	mode          Mode
	rate          float64
	noSnapshot    bool
	isOld, isTold bool
	cursor        string
	alone         int
}

func (w *want) together() together {
	return together{w.how.mode(), w.how.Rate, w.how.NoSnapshot, w.isOld, w.isTold, w.how.Cursor, w.alone}
}

// A place is where a topic stands.
type place struct {
	topic  string
	epoch  string // "" as long as nobody has told
	hasSeq bool
	seq    uint64 // the last number that came, or was left out, if there was one
	// Numbers have to come one after the other.
	gapless bool
	// It is as it was before the connection was lost, and nothing was heard of it since.
	before bool
	// The first number of a gap, which was asked for once; 0 for none.
	gap uint64
	// In the order in which they came to be known.
	previous, next *place
}

// before is the number before one, of those that begin with 1.
func before(seq uint64) uint64 { return max(seq, 1) - 1 }

func (p *place) stands(seq uint64) { p.hasSeq, p.seq = true, seq }

// topics are the names that are wanted, and the topics that they have brought.
type topics struct {
	emit      func(Event)
	placesMax int
	wants     map[string]*want
	// The wants in the order in which they were asked for, and the patterns among them.
	order, patterns []*want
	places          map[string]*place
	first, last     *place
	// There were more topics than are remembered: one that isn't known may be old.
	hasForgotten bool
	// Topics that have keyframes.
	keyed map[string]bool
	// Topics that are new among the last values that are coming began while the connection was lost.
	wasAway bool
	// After a loss, until all last values have come: it was resumed by a cursor; the server has said that what one stood at is void.
	byCursor, isVoid bool
	// Something is missing, and is to be asked for by its topic's own point.
	hasGap bool
}

// ---- What comes ------------------------------------------------------------------------------------------------------------------------------------------------

// arrive takes a publication; or what stands in the place of one, or of some.
func (t *topics) arrive(topic string, first, last uint64, epoch string, event Event) error {
	place := t.place(topic)
	if !t.isWanted(topic) {
		return nil // It was on its way when we left.
	}
	if place.before {
		t.rejoin(place, first, last, epoch)
	}
	if epoch != "" && place.epoch != epoch {
		if place.epoch != "" && place.seq != 0 {
			t.emit(&Reset{topic, epoch, before(first), "epoch"})
		}
		place.epoch, place.hasSeq, place.seq = epoch, false, 0
	}
	if place.hasSeq {
		if last <= place.seq {
			return nil // Had before.
		}
		if place.gapless && first > place.seq+1 {
			if err := t.gap(place, first); err != nil {
				return err
			}
		}
		if gap, is := event.(*Gap); is && first <= place.seq {
			gap.First = place.seq + 1
		}
	}
	place.stands(last)
	t.note(topic, event)
	t.emit(event)
	return nil
}

// stand takes a last value, or what stands in its place: the last ones that are not coming.
func (t *topics) stand(topic string, first, last uint64, epoch string, event Event) {
	update, _ := event.(*Update)
	isKey := update != nil && update.Key
	isNew := t.places[topic] == nil
	place := t.place(topic)
	if !t.isWanted(topic) {
		return
	}
	if place.before {
		hadSeq, had := place.hasSeq && place.epoch == epoch, place.seq
		t.rejoin(place, first, last, epoch)
		if place.hasSeq && place.seq == last && !isKey {
			return // As it was left.
		}
		if gap, is := event.(*Gap); is && hadSeq && first <= had && had < last {
			gap.First = had + 1
		}
	} else if isNew && t.wasAway && !t.hasForgotten && first > 1 {
		t.emit(&Gap{topic, 1, first - 1, "reconnect"})
	}
	if place.hasSeq && place.epoch == epoch && last < place.seq && !isKey {
		return // Newer ones came already.
	}
	place.epoch = epoch
	place.stands(last)
	t.note(topic, event)
	t.emit(event)
}

// note remembers that a topic has keyframes, as long as topics are remembered.
func (t *topics) note(topic string, event Event) {
	if update, is := event.(*Update); is && update.Key && len(t.keyed) < t.placesMax {
		t.keyed[topic] = true
	}
}

func (t *topics) skip(gap *Gap, epoch string) error {
	topic, first, last := gap.Topic, gap.First, gap.Last
	if gap.Why == "too_large" {
		// In the place of updates; or of a snapshot, which says the epoch, as a topic's first publication does.
		place := t.places[topic]
		isFirst := first == 1 && (place == nil || !place.before && place.hasSeq && place.seq == 0)
		if epoch == "" || isFirst {
			return t.arrive(topic, first, last, epoch, gap)
		}
		t.stand(topic, first, last, epoch, gap)
		return nil
	}
	if !t.isWanted(topic) {
		return nil
	}
	place := t.place(topic)
	if place.before {
		t.rejoin(place, first, last, epoch)
	}
	place.stands(last)
	t.emit(gap)
	return nil
}

func (t *topics) reset(reset *Reset) {
	t.isVoid = true
	if !t.isWanted(reset.Topic) {
		return
	}
	place := t.place(reset.Topic)
	place.epoch, place.before = reset.Epoch, false
	place.stands(reset.Seq)
	t.emit(reset)
}

// ---- Losing a connection, and coming back ----------------------------------------------------------------------------------------------------------------------

// lost: there is no connection any more, and nothing is known to go on.
func (t *topics) lost() {
	for place := t.first; place != nil; place = place.next {
		place.before, place.gapless = true, false
	}
	for _, want := range t.order {
		want.misses = want.misses || want.knowsAll && want.agreed != nil && want.agreed.Mode == All
		want.agreed, want.again = nil, false
	}
}

// left says where the topics of names were left: those that are names themselves, and as many others as there is room to name.
func (t *topics) left(wants []*want, room int) ([]string, map[string]Point) {
	var names []string
	points := map[string]Point{}
	for _, place := range t.covered(wants) {
		if !place.before || !place.hasSeq || place.epoch == "" {
			continue
		}
		if t.wants[place.topic] == nil {
			if room--; room < 0 {
				continue
			}
			names = append(names, place.topic)
		}
		points[place.topic] = Point{place.epoch, place.seq}
	}
	return names, points
}

// acknowledged: the server says where a topic stands as it begins to send it.
func (t *topics) acknowledged(topic, epoch string, seq uint64, point Point, isResumed bool) {
	place := t.place(topic)
	switch {
	case isResumed:
		// It goes on from there, or with a reset.
		if point.Epoch == epoch {
			seq = point.Seq
		}
		place.epoch, place.before = epoch, false
		place.stands(seq)
	case !place.before:
		place.epoch = epoch
		place.stands(seq)
	case t.byCursor:
		// It goes on, or there will be a reset.
	default:
		want := t.wants[topic]
		isOther := place.epoch != epoch
		if isOther || want != nil && want.how.NoSnapshot {
			t.rejoin(place, seq+1, seq, epoch)
			place.epoch = epoch
			place.stands(seq)
		}
	}
}

// settle: after a loss all last values have come. Who was not heard of is gone, or can't be known to go on.
func (t *topics) settle() {
	goesOn := t.byCursor && !t.isVoid
	t.byCursor = false
	for place := t.first; place != nil; place = place.next {
		if !place.before {
			continue
		}
		if goesOn && place.gapless {
			place.before = false
			continue
		}
		t.drop(place)
		if place.hasSeq {
			t.emit(&Reset{place.topic, "", 0, "reconnect"})
		}
	}
}

// ---- Names -----------------------------------------------------------------------------------------------------------------------------------------------------

func (t *topics) add(want *want) {
	if t.wants[want.name] == nil {
		t.order = append(t.order, want)
	} else {
		for at := range t.order {
			if t.order[at].name == want.name {
				t.order[at] = want
			}
		}
	}
	t.wants[want.name] = want
}

// end takes names out, and forgets their topics, as far as nobody else wants them.
func (t *topics) end(ended []*want) {
	if len(ended) == 0 {
		return
	}
	for _, want := range ended {
		delete(t.wants, want.name)
	}
	kept := t.order[:0]
	for _, want := range t.order {
		if t.wants[want.name] == want {
			kept = append(kept, want)
		}
	}
	clear(t.order[len(kept):])
	t.order = kept
	t.listPatterns()
	for _, place := range t.covered(ended) {
		if !t.isWanted(place.topic) {
			t.drop(place)
			delete(t.keyed, place.topic)
		}
	}
	t.measure(ended)
}

func (t *topics) listPatterns() {
	t.patterns = t.patterns[:0]
	for _, want := range t.order {
		if isPattern(want.name) {
			t.patterns = append(t.patterns, want)
		}
	}
}

// covered are the topics that names stand for, as far as they are known.
func (t *topics) covered(wants []*want) []*place {
	var found []*place
	for _, want := range wants {
		if !isPattern(want.name) {
			continue
		}
		for place := t.first; place != nil; place = place.next {
			for _, want := range wants {
				if matches(want.name, place.topic) {
					found = append(found, place)
					break
				}
			}
		}
		return found
	}
	for _, want := range wants {
		if place := t.places[want.name]; place != nil {
			found = append(found, place)
		}
	}
	return found
}

// startAnew: these begin now, where they weren't without a gap before.
func (t *topics) startAnew(wants []*want, points map[string]Point) {
	for _, place := range t.covered(wants) {
		if _, resumed := points[place.topic]; !place.before && !place.gapless && !resumed {
			place.hasSeq, place.seq = false, 0
		}
	}
}

// measure: the server has agreed to other things for these. Do their topics come without a gap?
func (t *topics) measure(wants []*want) {
	for _, place := range t.covered(wants) {
		place.gapless = t.isGapless(place.topic)
	}
}

// ---- One topic -------------------------------------------------------------------------------------------------------------------------------------------------

// rejoin: something of a topic comes after a loss. Says what is missing, or that it can't be known.
func (t *topics) rejoin(place *place, first, last uint64, epoch string) {
	place.before = false
	had, hadSeq := place.seq, place.hasSeq
	if !hadSeq || t.byCursor && !t.isVoid && place.gapless && (epoch == "" || epoch == place.epoch) {
		return
	}
	if epoch == "" || epoch != place.epoch || last < had {
		place.hasSeq, place.seq = false, 0
		t.emit(&Reset{place.topic, epoch, before(first), "reconnect"})
	} else if last > had {
		place.hasSeq, place.seq = false, 0
		if first > had+1 && place.gapless {
			t.emit(&Gap{place.topic, had + 1, first - 1, "reconnect"})
		}
	}
}

// gap is what must not happen: something is missing before a number. Comes back for it; if it isn't there then either, it is a gap.
func (t *topics) gap(place *place, behind uint64) error {
	first, last := place.seq+1, behind-1
	if place.gap == first {
		place.gap = 0
		t.emit(&Gap{place.topic, first, last, "missing"})
		return nil
	}
	place.gap, t.hasGap = first, true
	why := fmt.Sprintf("%s: %d to %d did not arrive; they are asked for again", place.topic, first, last)
	t.emit(&Status{Code: "gap", Topics: []string{place.topic}, Message: why})
	return &broken{why}
}

// place finds where a topic stands, or begins to remember it, if somebody wants it and there is room.
func (t *topics) place(topic string) *place {
	found := t.places[topic]
	if found != nil {
		return found
	}
	found = &place{topic: topic, gapless: t.isGapless(topic)}
	if !t.isWanted(topic) {
		return found
	}
	if len(t.places) >= t.placesMax {
		t.hasForgotten = true
		return found
	}
	t.places[topic] = found
	found.previous = t.last
	if t.last == nil {
		t.first = found
	} else {
		t.last.next = found
	}
	t.last = found
	return found
}

// drop forgets a place. Its own next stays, for who goes along.
func (t *topics) drop(place *place) {
	delete(t.places, place.topic)
	if place.previous == nil {
		t.first = place.next
	} else {
		place.previous.next = place.next
	}
	if place.next == nil {
		t.last = place.previous
	} else {
		place.next.previous = place.previous
	}
}

func (t *topics) epoch(topic string) string {
	if place := t.places[topic]; place != nil {
		return place.epoch
	}
	return ""
}

func (t *topics) isWanted(topic string) bool {
	if t.wants[topic] != nil {
		return true
	}
	for _, want := range t.patterns {
		if matches(want.name, topic) {
			return true
		}
	}
	return false
}

// isGapless: where names overlap, the server delivers the most of what they say.
func (t *topics) isGapless(topic string) bool {
	isAll := func(want *want) bool { return want != nil && want.agreed != nil && want.agreed.Mode == All }
	if isAll(t.wants[topic]) {
		return true
	}
	for _, want := range t.patterns {
		if isAll(want) && matches(want.name, topic) {
			return true
		}
	}
	return false
}
