package openai

import (
	"time"

	"home.arpa/lab/llm-runner/internal/llm"
	"home.arpa/lab/llm-runner/internal/provider/openai/wire"
)

// InBand reads an error that a server wrote where an answer was due, under status 200: as an event of a stream, or as the
// whole body. What is no error of the dialect is an error of kind Unavailable.
func InBand(body []byte, now time.Time) *llm.Error {
	said := wire.ParseError(body)
	if said == nil {
		said = &wire.Error{Message: "answered with an error", Raw: body}
	}
	return inBand(said, now)
}

// TellsUsage says that the server tells the usage of a stream without being asked: Groq does, in x_groq.usage
// (https://console.groq.com/docs/api-reference#chat-create).
func (p *Provider) TellsUsage() bool { return p.flavor == Groq }
