package agent

import (
	"slices"
	"strings"

	"home.arpa/lab/llm-runner/internal/engine"
)

// vault is what some runs need of the process that works on them, where several share a database.
const vault = "vault"

// options are for the engine's call of a run: of which agent.
func (s *Service) options(agent string) engine.Options {
	o := engine.Options{Lane: "agents"}
	if s.needsVault(agent, mostDepth) {
		o.Needs = vault
	}
	return o
}

// needsVault says that an agent's file is in the vault, or that it reads or writes there, or that an agent does which it may call. One that
// this process does not know is in a vault that it does not have.
func (s *Service) needsVault(agent string, depth int) bool {
	a, err := s.Find(agent)
	if err != nil || a.inVault || a.Kind == Briefing || a.Kind == Research || slices.ContainsFunc(a.Deliver, intoVault) {
		return true
	}
	return slices.ContainsFunc(a.Tools, func(tool string) bool {
		if called, ok := strings.CutPrefix(tool, toolPrefix); ok {
			return depth > 1 && s.needsVault(called, depth-1)
		}
		return tool == "*" || s.config.OfVault != nil && s.config.OfVault(tool)
	})
}

// intoVault says that a place is a note.
func intoVault(sink string) bool { return sink == "vault" || sink == "daily" }

// postOptions are for the engine's call that delivers to a place.
func postOptions(sink string) engine.Options {
	o := engine.Options{Lane: "agents " + sink}
	if intoVault(sink) {
		o.Needs = vault
	}
	return o
}
