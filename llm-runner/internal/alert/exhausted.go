package alert

import (
	"fmt"
	"time"

	"home.arpa/lab/llm-runner/internal/llm"
)

// overloaded is how long a provider may be overloaded until anybody is told: it mostly passes.
const overloaded = time.Minute

// Exhausted is the incident that work is held since a provider's limit is used up, or since it is overloaded; ok is false where b is
// neither.
func Exhausted(b *llm.BusyError) (i Incident, ok bool) {
	if b.Provider == "" || b.Kind != llm.Quota && b.Kind != llm.Overload {
		return i, false
	}
	until := ""
	if !b.Until.IsZero() {
		until = " until " + b.Until.Local().Format("Mon 15:04:05")
	}
	i = Incident{Key: string(b.Kind) + "/" + b.Provider, Provider: b.Provider, WhileHeld: true,
		Text: fmt.Sprintf("%s. Work that needs it is held%s.", b.Reason, until), Over: b.Provider + " takes work again"}
	if b.Dimension != "" && b.Dimension != llm.Overall {
		i.Key += "/" + b.Dimension
	}
	if b.Kind == llm.Overload {
		i.Grace = overloaded
	}
	return i, true
}
