package browse

import (
	"bufio"
	"strings"
)

// agent is our name to robots.txt and in requests (RFC 9309, section 2.2.1).
const agent = "llm-runner"

// A rule of robots.txt.
type rule struct {
	pattern string
	allow   bool
}

// rules are those of robots.txt that hold for us: of the groups with our name, or else of those for everybody. Groups of one name
// are one (RFC 9309).
func rules(text string) []rule {
	var ours, all []rule
	var mine, every, naming, found bool
	lines := bufio.NewScanner(strings.NewReader(strings.TrimPrefix(text, "\ufeff")))
	lines.Buffer(nil, 64<<10)
	for lines.Scan() {
		line, _, _ := strings.Cut(lines.Text(), "#")
		key, value, ok := strings.Cut(line, ":")
		if !ok {
			continue
		}
		key, value = strings.ToLower(strings.TrimSpace(key)), strings.TrimSpace(value)
		switch key {
		case "user-agent":
			if !naming {
				mine, every = false, false
			}
			naming = true
			name := strings.ToLower(value)
			every = every || name == "*"
			if name != "*" && name != "" && strings.HasPrefix(agent, name) {
				mine, found = true, true
			}
		case "allow", "disallow":
			naming = false
			if value == "" { // "Disallow:" forbids nothing
				continue
			}
			r := rule{value, key == "allow"}
			if mine {
				ours = append(ours, r)
			}
			if every {
				all = append(all, r)
			}
		}
	}
	if found {
		return ours
	}
	return all
}

// allowed says whether a path, with its query, may be fetched: the longest rule that matches counts, and allow before disallow.
func allowed(all []rule, path string) bool {
	if path == "/robots.txt" {
		return true
	}
	best, ok := -1, true
	for _, r := range all {
		if n := len(r.pattern); matches(r.pattern, path) && (n > best || n == best && r.allow) {
			best, ok = n, r.allow
		}
	}
	return ok
}

// matches knows * (anything) and a $ at the end (here the path ends).
func matches(pattern, path string) bool {
	pattern, anchored := strings.CutSuffix(pattern, "$")
	pieces := strings.Split(pattern, "*")
	if !strings.HasPrefix(path, pieces[0]) {
		return false
	}
	path = path[len(pieces[0]):]
	for i, piece := range pieces[1:] {
		if anchored && i == len(pieces)-2 {
			return strings.HasSuffix(path, piece)
		}
		at := strings.Index(path, piece)
		if at < 0 {
			return false
		}
		path = path[at+len(piece):]
	}
	return !anchored || path == ""
}
