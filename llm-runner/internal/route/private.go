package route

import (
	"fmt"

	"home.arpa/lab/llm-runner/internal/llm"
)

// leftOut stands in the place of an earlier answer that is not sent.
const leftOut = "(This answer rests on notes that are not sent to you, and is left out.)"

// Outside says that what is sent to a target leaves the owner's machines.
func (r *Router) Outside(t Target) bool {
	m := r.member[t.Provider]
	return m == nil || m.Cloud || m.Outside != nil && m.Outside(t.Model)
}

// public returns messages without their private parts, and how many those were. It is an error where nothing is left of the last message:
// an answer without it would be one to another question.
func public(messages []llm.Message, to Target) (sent []llm.Message, withheld int, err error) {
	for i, m := range messages {
		var parts []llm.Part
		for _, p := range m.Parts {
			if p.Private {
				withheld++
				continue
			}
			parts = append(parts, p)
		}
		switch {
		case len(parts) == len(m.Parts):
		case len(parts) > 0:
			m.Parts = parts
		case i == len(messages)-1:
			return nil, withheld, &llm.Error{Kind: llm.BadRequest, Provider: to.Provider, Model: to.Model, Message: fmt.Sprintf(
				"the request rests on notes that are never sent, and %s is a cloud provider: name a model of a machine of your own", to.Provider)}
		default:
			m.Parts = []llm.Part{{Text: leftOut}}
		}
		sent = append(sent, m)
	}
	return sent, withheld, nil
}

// through is the route of an answer that another provider's route (nil: none) came with: the vault's, whose answer a model wrote.
func (a *Attempt) through(by *llm.Route) *llm.Route {
	if by == nil {
		return a.Route()
	}
	r := *by
	r.Rule, r.Why = a.Decision.Rule, fmt.Sprintf("%s; %s/%s writes: %s", a.Decision.Why, by.Provider, by.Model, by.Why)
	return &r
}
