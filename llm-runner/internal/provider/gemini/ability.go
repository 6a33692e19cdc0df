package gemini

import (
	"regexp"
	"strconv"
	"strings"
)

// An ability is what one model accepts, read from its name: the API answers 400 to settings that a model does not know
// (ai.google.dev, "Gemini thinking", "Thought signatures", "Structured outputs").
type ability struct {
	thinking       thinkingForm
	flash          bool // knows the level MINIMAL, or may have a budget of 0
	signsCalls     bool // refuses calls of earlier turns without a signature
	toolsAndFormat bool // takes tools and a response format together
}

type thinkingForm int

const (
	noThinking thinkingForm = iota
	budget                  // thinkingBudget: 2.5
	level                   // thinkingLevel: 3 and later, which refuse a request that has both
)

var generationOf = regexp.MustCompile(`gemini-(\d+)(?:\.(\d+))?(?:-|$)`)

// able returns what a model accepts. Names without a version (gemini-flash-latest) are of the newest generation; those that
// are not Gemini's (gemma-3-27b-it, learnlm) know none of it.
func able(model string) ability {
	name := strings.ToLower(model)
	a := ability{flash: strings.Contains(name, "flash")}
	version := 0
	switch m := generationOf.FindStringSubmatch(name); {
	case m != nil:
		major, _ := strconv.Atoi(m[1]) // digits
		minor, _ := strconv.Atoi(m[2]) // digits or nothing
		version = 100*major + minor
	case strings.Contains(name, "gemini-") && strings.HasSuffix(name, "-latest"):
		version = 9900
	}
	switch {
	case version >= 300:
		a.thinking, a.signsCalls, a.toolsAndFormat = level, true, true
	case version >= 205:
		a.thinking = budget
	}
	return a
}

// budgets are the thinking tokens of an effort: Google's own, of its OpenAI-compatible interface (ai.google.dev, "OpenAI
// compatibility", thinking).
var budgets = map[string]int{"minimal": 1024, "low": 1024, "medium": 8192, "high": 24576}

// minBudget is the least that gemini-2.5-pro takes; it cannot be told not to think.
const minBudget = 128

// think says how hard to think; nil leaves it to the model. Thinking that is asked for is also shown.
func (a ability) think(effort string) *thinking {
	if effort == "" || a.thinking == noThinking {
		return nil
	}
	t := &thinking{IncludeThoughts: effort != "none"}
	if a.thinking == budget {
		n := budgets[effort]
		if n == 0 && !a.flash {
			n = minBudget
		}
		t.Budget = &n
		return t
	}
	t.Level = strings.ToUpper(effort)
	if effort == "none" || effort == "minimal" {
		t.Level = "LOW" // Gemini 3 always thinks
		if a.flash {
			t.Level = "MINIMAL"
		}
	}
	return t
}
