package anthropic

import (
	"strconv"
	"strings"
)

// An ability is what one model accepts. The API answers 400 to a parameter that a model does not know, so each request
// is cut to its model. The rules go by family and version rather than by a list of names, so that next year's model is
// treated like this year's (platform.claude.com, "What's new" and migration guides up to Opus 5.5, September 2026).
type ability struct {
	thinking thinkingForm
	// quiet says that thinking can be switched off where it is on by default, with {"type":"disabled"}.
	quiet bool
	// sampling says that temperature and top_p are accepted. From 4.7 on they are refused ("deprecated for this model").
	sampling bool
	// either says that only one of temperature and top_p is accepted at a time (4.1 and later).
	either bool
	// forced says that tool_choice any and tool are accepted. Models that always think refuse them from Opus 5.5 on.
	forced bool
	// structured says that output_config.format and strict tools are accepted (4.5 and later).
	structured bool
	// stranger says that the model is not one of Anthropic's, so nothing is known of it.
	stranger bool
	// tokens is what max_tokens is set to where the caller did not say.
	tokens int
}

type thinkingForm int

const (
	noThinking thinkingForm = iota
	budget                  // {"type":"enabled","budget_tokens":n}: 3.7 to 4.5, refused from 4.7 on
	adaptive                // {"type":"adaptive"} and output_config.effort: 4.6 and later
)

// max_tokens is required by the API, so something must be said where the caller did not. Unused room costs nothing, for
// neither money nor the rate limits look at max_tokens; more than a model can give is refused.
const (
	newTokens = 16384 // 4.6 and later: thinking counts towards it, and is on by default from Claude 5 on
	midTokens = 8192  // 3.7 to 4.5; with the largest thinking budget on top it stays below the 32,000 of Opus 4
	oldTokens = 4096  // before, all that Claude 3 takes
)

// able returns what a model accepts. Names that are not Claude's belong to other vendors' servers that speak this
// protocol; those know its older and plainer form, and ignore what they do not know.
func able(model string) ability {
	family, version, ok := parseModel(model)
	if !ok {
		return ability{thinking: budget, sampling: true, forced: true, structured: true, stranger: true, tokens: midTokens}
	}
	a := ability{sampling: version < 407, either: version >= 401, structured: version >= 405, forced: true, tokens: newTokens}
	switch {
	case version >= 406:
		a.thinking = adaptive
	case version >= 307:
		a.thinking, a.tokens = budget, midTokens
	default:
		a.tokens = oldTokens
	}
	always := family == "fable" || family == "mythos" || version >= 505 && family != "haiku"
	a.quiet = a.thinking == adaptive && !always
	a.forced = !always
	return a
}

// parseModel reads family and version (100*major + minor) from a model's name: claude-opus-4-6,
// claude-haiku-4-5-20251001, claude-3-7-sonnet-20250219, claude-opus-4-20250514 (4.0), anthropic.claude-sonnet-5. A Claude
// without a version is new.
func parseModel(model string) (family string, version int, ok bool) {
	_, rest, ok := strings.Cut(strings.ToLower(model), "claude-")
	if !ok {
		return "", 0, false
	}
	var numbers []int
	for _, word := range strings.FieldsFunc(rest, func(r rune) bool { return strings.ContainsRune("-.@_:", r) }) {
		n, err := strconv.Atoi(word)
		switch {
		case err != nil && family == "":
			family = word
		case err == nil && len(word) <= 2: // longer ones are dates
			numbers = append(numbers, n)
		}
	}
	switch len(numbers) {
	case 0:
		return family, 9900, true
	case 1:
		return family, 100 * numbers[0], true
	}
	return family, 100*numbers[0] + numbers[1], true
}
