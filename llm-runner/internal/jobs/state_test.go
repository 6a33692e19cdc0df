package jobs

import (
	"os"
	"regexp"
	"testing"
)

func TestTheDrawingIsTheCode(t *testing.T) {
	text, err := os.ReadFile("../../../docs/states.md")
	if err != nil {
		t.Fatal(err)
	}
	drawn := map[edge]string{}
	for _, m := range regexp.MustCompile(`(?m)^ +(\S+) --> (\w+): (.+)$`).FindAllStringSubmatch(string(text), -1) {
		from := State(m[1])
		if from == "[*]" {
			from = ""
		}
		drawn[edge{from, State(m[2])}] = m[3]
	}
	for e, why := range transitions {
		if drawn[e] != why {
			t.Errorf("docs/states.md says %q of %s --> %s, the code %q", drawn[e], e.from, e.to, why)
		}
	}
	for e := range drawn {
		if _, ok := transitions[e]; !ok {
			t.Errorf("docs/states.md draws %s --> %s, which the code does not know", e.from, e.to)
		}
	}
}

func TestNothingLeavesDoneAndAllElseCanEnd(t *testing.T) {
	for e := range transitions {
		if e.from == Done {
			t.Errorf("done goes on to %s", e.to)
		}
	}
	for _, s := range States {
		if s.Ended() {
			continue
		}
		for _, end := range []State{Failed, Cancelled} {
			if _, ok := transitions[edge{s, end}]; !ok {
				t.Errorf("%s cannot become %s", s, end)
			}
		}
	}
}
