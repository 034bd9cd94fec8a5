package stentor

import "strings"

// A Point is where one is in a topic: its epoch, and the last number that one has of it.
type Point struct {
	Epoch string
	Seq   uint64
}

// matches says whether a topic is meant by a name: itself, or a pattern in which * is one segment and a last > one or more.
func matches(name, topic string) bool {
	if name == topic || name == ">" {
		return true
	}
	if !isPattern(name) {
		return false
	}
	for {
		wanted, names, more := strings.Cut(name, ".")
		if wanted == ">" && !more {
			return topic != ""
		}
		found, topics, rest := strings.Cut(topic, ".")
		if wanted != "*" && wanted != found || more != rest {
			return false
		}
		if !more {
			return true
		}
		name, topic = names, topics
	}
}

func isPattern(name string) bool {
	return strings.Contains(name, "*") || strings.HasSuffix(name, ">")
}

// A part is names that go in one command, and where to resume them.
type part struct {
	names  []string
	points map[string]Point
}

// split makes parts of at most so many bytes of JSON. Names are ASCII.
func split(names []string, points map[string]Point, bytesMax int) []part {
	var parts []part
	room := 0
	for _, name := range names {
		point, resumed := points[name]
		size := len(name) + 3
		if resumed {
			size += len(name) + len(point.Epoch) + 30
		}
		if size > room || parts == nil {
			parts = append(parts, part{points: map[string]Point{}})
			room = bytesMax
		}
		last := &parts[len(parts)-1]
		last.names = append(last.names, name)
		if resumed {
			last.points[name] = point
		}
		room -= size
	}
	return parts
}
