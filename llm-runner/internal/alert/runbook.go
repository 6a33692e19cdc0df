package alert

import "strings"

// runbooks are the pages that say what to do, by the first word of an incident's key. Whoever raises a new kind adds its page.
var runbooks = map[string]string{
	"down":     "machine-down",
	"quota":    "rate-limit",
	"overload": "provider-overloaded",
	"refused":  "provider-refuses",
	"disk":     "database-cannot-be-written",
	"database": "database-away",
	"traces":   "traces-lost",
	"approval": "your-word",
	"plan":     "your-word",
	"search":   "search-broken",
}

// Kinds are the first words of the keys of all incidents that have a page, each with its page below docs/runbooks.
func Kinds() map[string]string { return runbooks }

// DefaultRunbooks is where the pages are when nobody says otherwise: in the repository.
const DefaultRunbooks = "docs/runbooks/"

// Kind is what kind of incident it is: the first word of its key; "" of news.
func (a Alert) Kind() string {
	kind, _, _ := strings.Cut(a.Key, "/")
	return kind
}

// runbook is the link to an incident's page, "" where it has none.
func runbook(base, key string) string {
	kind, _, _ := strings.Cut(key, "/")
	page, ok := runbooks[kind]
	if !ok {
		return ""
	}
	if base == "" {
		base = DefaultRunbooks
	}
	return strings.TrimRight(base, "/") + "/" + page + ".md"
}
