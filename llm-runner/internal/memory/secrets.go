package memory

import (
	"math"
	"regexp"
	"slices"
	"strings"
	"unicode"
)

// A span is the bytes [from, to) of a text.
type span struct{ from, to int }

func (s span) meets(from, to int) bool { return s.from < to && from < s.to }

// secrets returns where a text holds what is never stored and never asked a model about: keys, tokens, passwords, card numbers, IBANs,
// one-time codes. Rules find what has a form or is called by its name, entropy what looks drawn by lot. Too much is taken rather than too
// little: a fact that is lost can be said again.
func secrets(text string) []span {
	var all []span
	add := func(from, to int) { all = append(all, span{from, to}) }
	for _, re := range shapes {
		for _, m := range re.FindAllStringIndex(text, -1) {
			add(m[0], m[1])
		}
	}
	for _, m := range digits.FindAllStringIndex(text, -1) {
		if luhn(text[m[0]:m[1]]) {
			add(m[0], m[1])
		}
	}
	for _, m := range iban.FindAllStringIndex(text, -1) {
		if n := strings.Count(text[m[0]:m[1]], " "); m[1]-m[0]-n >= 15 && countDigits(text[m[0]:m[1]]) >= 10 {
			add(m[0], m[1])
		}
	}
	said := sentences(text)
	for i, s := range said {
		for _, p := range named(text[s.from:s.to]) {
			add(s.from+p.from, s.from+p.to)
		}
		switch { // name and value may be two sentences, or two lines
		case i > 0 && pointsBack(text[s.from:s.to]):
			add(said[i-1].from, said[i-1].to)
		case i+1 < len(said) && announces(text[s.from:s.to]):
			from := said[i+1].from
			end := said[i+1].to
			if strings.Contains(text[s.to-1:from+1], "\n") && !strings.Contains(text[s.from:s.to], "?") { // a list below its heading: to the next empty line
				from += len(text[from:]) - len(strings.TrimLeft(text[from:], " \t\r\n"))
				if end = len(text); empty.MatchString(text[from:]) {
					end = from + empty.FindStringIndex(text[from:])[0]
				}
			}
			add(from, end)
		}
	}
	for _, m := range word.FindAllStringIndex(text, -1) {
		if random(text[m[0]:m[1]]) {
			add(m[0], m[1])
		}
	}
	return joined(all)
}

// shapes are secrets that are known by their form.
var shapes = []*regexp.Regexp{
	regexp.MustCompile(`(?s)-----BEGIN [A-Z ]*(?:PRIVATE KEY|PGP MESSAGE)[A-Z ]*-----.*?(?:-----END [A-Z ]*-----|$)`),
	regexp.MustCompile(`\b(?:sk|pk|rk|gsk|xai|hf|npm|pypi|tvly|ghp|gho|ghu|ghs|ghr|glpat|github_pat|dop_v1|shpat|whsec|tskey|xox[abprs])[-_][A-Za-z0-9_-]{8,}`),
	regexp.MustCompile(`\b(?:AKIA|ASIA)[A-Z0-9]{12,}`),
	regexp.MustCompile(`\bAIza[A-Za-z0-9_-]{20,}`),
	regexp.MustCompile(`\bSG\.[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]{10,}`),
	regexp.MustCompile(`\beyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}(?:\.[A-Za-z0-9_-]*)?`),
	regexp.MustCompile(`\bAGE-SECRET-KEY-1[A-Z0-9]+`),
	regexp.MustCompile(`(?i)\b[a-z][a-z0-9+.-]*://[^\s/@:]*:[^\s/@]+@\S*`), // user and password in a URL
	regexp.MustCompile(`(?i)\bbearer\s+[A-Za-z0-9._~+/=-]{8,}`),
}

var (
	digits = regexp.MustCompile(`\b\d(?:[ -]?\d){12,18}\b`)
	iban   = regexp.MustCompile(`(?i)\b[A-Z]{2}\d{2}(?: ?[A-Z0-9]{2,4}){3,8}\b`)
	word   = regexp.MustCompile(`[^\s"'<>()\[\]{},;]{10,}`)

	// called is a secret by its name.
	called = regexp.MustCompile(`(?i)(?:\b|[\p{L}-]+)(?:pass ?words?|pass ?phrases?|pass ?codes?|passw(?:o|ö)rte?r?|kennw(?:o|ö)rte?r?|losung|pwd|` +
		`pins?|puk|tans?|otps?|cvv2?|cvc2?|secret|api[ -]?keys?|access keys?|(?:private|secret|recovery|license) keys?|tokens?|codes?|credentials?|zugangsdaten|` +
		`geheimnis|(?:api|lizenz|wiederherstellungs|zugangs)[ -]?schlüssel|(?:seed|recovery|mnemonic) ?(?:phrase|words?)|kombination|combination|` +
		`steuer-?id|sozialversicherungsnummer|ausweisnummer|passport number|social security number|ssn|kartennummer|card number|kontonummer|account number)\b`)
	// is ties a name to its value.
	is       = regexp.MustCompile(`(?i)(?:[:=]|->|→|\b(?:is|are|was|ist|sind|war|lautet|lauten|heißt|heisst|use|nimm|nehme|changed to|geändert (?:auf|in|zu))\b)`)
	opens    = regexp.MustCompile(`(?i)\b(?:is|ist|war|was|are|sind|as|als)\s+(?:my|our|the|your|mein\w*|unser\w*|das|der|die|dein\w*|ihr\w*|sein\w*)\b`)
	harmless = regexp.MustCompile(`(?i)(?:zip|postal|post|area|dress|source|quell|open-source|morse|bar|qr|country|länder)[ -]?codes?$`)
	empty    = regexp.MustCompile(`\n[ \t\r]*\n`)
	// hangs is what may follow a name whose value comes next; back is how a sentence begins that names what came before.
	hangs   = regexp.MustCompile(`(?i)^[\s"'*_)]*(?:(?:[:=?]|[-–—]>?|→|is|are|was|ist|sind|war|lautet|lauten|heißt|heisst)[\s"'*_:]*)*$`)
	back    = regexp.MustCompile(`(?i)^\W*(?:(?:that|this|it|which|das|dies|dieses|es)\s*)?(?:\b(?:is|was|ist|war)|['’]s)\s+(?:my|our|the|mein\w*|unser\w*|das|der|die)\b`)
	somehow = regexp.MustCompile(`\d(?:[ -]?\d){3,7}\b`) // a one-time code
)

// named returns what in a sentence is a secret because it is called one: "the password is ...", "... is my PIN".
func named(s string) (all []span) {
	for _, m := range called.FindAllStringIndex(s, -1) {
		if harmless.MatchString(s[:m[1]]) {
			continue
		}
		if tie := is.FindStringIndex(s[m[1]:]); tie != nil {
			all = append(all, span{m[1] + tie[1], len(s)})
		}
		if tie := opens.FindStringIndex(s[:m[0]]); tie != nil {
			all = append(all, span{0, tie[0]})
		}
		for _, n := range somehow.FindAllStringIndex(s, -1) {
			all = append(all, span{n[0], n[1]})
		}
		for _, w := range word.FindAllStringIndex(s, -1) { // "log in with password Sommer2024!"
			if classes(s[w[0]:w[1]]) >= 3 {
				all = append(all, span{w[0], w[1]})
			}
		}
		if next := strings.Fields(s[m[1]:]); len(next) > 0 && classes(next[0]) >= 2 && countDigits(next[0]) > 0 { // "password hunter2"
			at := m[1] + strings.Index(s[m[1]:], next[0])
			all = append(all, span{at, at + len(next[0])})
		}
	}
	return all
}

// announces says that a sentence ends with the name of a secret, so that the next one is the secret: "My PIN?", "Passwort:".
func announces(s string) bool {
	return slices.ContainsFunc(called.FindAllStringIndex(s, -1), func(m []int) bool { return !harmless.MatchString(s[:m[1]]) && hangs.MatchString(s[m[1]:]) })
}

// pointsBack says that a sentence calls the one before it a secret: "That is my PIN".
func pointsBack(s string) bool {
	m := back.FindStringIndex(s)
	return m != nil && slices.ContainsFunc(called.FindAllStringIndex(s, -1), func(n []int) bool { return n[0] >= m[0] && !harmless.MatchString(s[:n[1]]) })
}

var (
	parts       = regexp.MustCompile(`[/?&=.:@#]+`)
	hexadecimal = regexp.MustCompile(`^[0-9a-fA-F-]+$`)
)

// random says that a word looks drawn by lot rather than written.
func random(w string) bool {
	if strings.Contains(w, "://") || strings.HasPrefix(w, "www.") || strings.Count(w, "@") == 1 && strings.Contains(w[strings.Index(w, "@"):], ".") && classes(w) < 4 {
		return slices.ContainsFunc(parts.Split(w, -1), func(part string) bool { return len(part) >= 20 && drawn(part) })
	}
	return drawn(w)
}

func drawn(w string) bool {
	w = strings.TrimRight(w, ".!?:")
	n := countDigits(w)
	if n == 0 {
		return false
	}
	switch c := classes(w); {
	case len(w) >= 32 && hexadecimal.MatchString(w):
		return true
	case len(w) >= 20 && n >= 2 && entropy(w) >= 3.4 && !strings.ContainsAny(w, "/."):
		return true
	case len(w) >= 24 && c >= 3 && entropy(w) >= 4 && !strings.ContainsAny(w, "/."):
		return true
	case len(w) >= 10 && c == 4 && !strings.ContainsAny(w, "/:"):
		return true
	case len(w) >= 16 && c >= 3 && n >= 3 && entropy(w) >= 3.5 && !strings.ContainsAny(w, "/."):
		return true
	}
	return false
}

// classes counts small letters, capitals, digits and the rest, as far as a word has them.
func classes(w string) int {
	var small, big, digit, other int
	for _, r := range w {
		switch {
		case unicode.IsLower(r):
			small = 1
		case unicode.IsUpper(r):
			big = 1
		case unicode.IsDigit(r):
			digit = 1
		default:
			other = 1
		}
	}
	return small + big + digit + other
}

// entropy is Shannon's, in bits for each character.
func entropy(w string) float64 {
	counts, n := map[rune]int{}, 0.0
	for _, r := range w {
		counts[r]++
		n++
	}
	sum := 0.0
	for _, c := range counts {
		p := float64(c) / n
		sum -= p * math.Log2(p)
	}
	return sum
}

func countDigits(s string) int {
	n := 0
	for _, r := range s {
		if r >= '0' && r <= '9' {
			n++
		}
	}
	return n
}

// luhn says that the digits of s are those of a card (ISO/IEC 7812-1, annex B).
func luhn(s string) bool {
	sum, double := 0, false
	for i := len(s) - 1; i >= 0; i-- {
		if s[i] < '0' || s[i] > '9' {
			continue
		}
		d := int(s[i] - '0')
		if double {
			if d *= 2; d > 9 {
				d -= 9
			}
		}
		sum += d
		double = !double
	}
	return sum%10 == 0
}

// joined puts spans in order, those that touch into one.
func joined(all []span) []span {
	slices.SortFunc(all, func(a, b span) int { return a.from - b.from })
	var out []span
	for _, s := range all {
		if s.from >= s.to {
			continue
		}
		if n := len(out); n > 0 && s.from <= out[n-1].to {
			out[n-1].to = max(out[n-1].to, s.to)
			continue
		}
		out = append(out, s)
	}
	return out
}
