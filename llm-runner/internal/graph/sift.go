package graph

import (
	"fmt"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"unicode"
)

// A Drop is something that was found and is not read, and why.
type Drop struct {
	Path string `json:"path"`
	Why  string `json:"why"`
}

// mostDrops bounds what is kept of them.
const mostDrops = 60

// drop notes what is not read, each once.
func (x *Inquiry) drop(all ...Drop) {
	for _, d := range all {
		if len(x.Dropped) < mostDrops && !slices.Contains(x.Dropped, d) {
			x.Dropped = append(x.Dropped, d)
		}
	}
}

// sift leaves out what is no source, and puts what is dated and first hand before the rest.
func (q *Inquiries) sift(s *Step, x *Inquiry) error {
	kept, dropped := sift(x.Found)
	x.Found = kept
	x.drop(dropped...)
	s.Note("%d of %d passages", len(kept), len(kept)+len(dropped))
	return nil
}

var (
	// walls are what stands on a page that came in place of another one.
	walls = regexp.MustCompile(`(?i)(just a moment|attention required|access denied|verify(ing)? (that )?you are (a )?human|are you a robot|enable javascript|javascript is (disabled|required)|` +
		`\b(403|404|410|429|500|502|503)\b.{0,30}(forbidden|not found|gone|too many|error|bad gateway|unavailable)|page (not found|cannot be found|does not exist)|seite nicht gefunden|` +
		`(log|sign) in to (continue|read)|subscribe to (continue|read)|this content is not available|cookies? (to continue|must be enabled)|no results (were )?found|rate limit exceeded)`)
	// sales are what is written for search engines and buyers.
	sales = regexp.MustCompile(`(?i)(buy now|order now|click here|best prices?|lowest prices?|limited (time )?offer|discount code|promo code|free shipping|jetzt kaufen|jetzt bestellen|add to cart|` +
		`sponsored|affiliate|sign up today|act now|money[- ]back|best .{0,30} in 20\d\d|top \d+ best|you won't believe)`)
	links = regexp.MustCompile(`\]\(`)
)

const (
	shortWall = 800 // a page that says more than this beside such words is a page about them
	tooLittle = 40  // letters
)

// sift returns the passages that are sources, in their order but for those of the web: first what is first hand and dated. Notes of the
// owner are never left out; what comes from strangers has to be worth reading.
func sift(found []Source) (kept []Source, dropped []Drop) {
	for _, s := range found {
		if s.Collection == "web" {
			if why := worthless(s.Quote); why != "" {
				dropped = append(dropped, Drop{s.Path, why})
				continue
			}
		}
		kept = append(kept, s)
	}
	var at []int
	var pages []Source
	for i, s := range kept {
		if s.Collection == "web" {
			at, pages = append(at, i), append(pages, s)
		}
	}
	slices.SortStableFunc(pages, func(a, b Source) int { return worth(b) - worth(a) })
	for i, p := range pages {
		kept[at[i]] = p
	}
	return kept, dropped
}

// distinct returns the passages without those that say the same as one before them.
func distinct(found []Source) (kept []Source, twins []Drop) {
	var seen []map[string]bool
	for _, s := range found {
		words := shingles(s.Quote)
		if i := slices.IndexFunc(seen, func(other map[string]bool) bool { return alike(words, other) }); i >= 0 {
			twins = append(twins, Drop{s.Path, "it says the same as " + kept[i].Path})
			continue
		}
		seen, kept = append(seen, words), append(kept, s)
	}
	return kept, twins
}

// worthless says why a passage of a stranger's page is no source; "" it may be one.
func worthless(text string) string {
	if len(text) < shortWall && walls.MatchString(text) {
		return "it is a page with an error, a login or a riddle for robots"
	}
	words := strings.FieldsFunc(strings.ToLower(text), func(r rune) bool { return !unicode.IsLetter(r) && !unicode.IsDigit(r) })
	letters, times, most, which := 0, map[string]int{}, 0, ""
	for _, w := range words {
		letters += len([]rune(w))
		if len([]rune(w)) > 3 {
			if times[w]++; times[w] > most {
				most, which = times[w], w
			}
		}
	}
	switch {
	case letters < tooLittle:
		return "it says next to nothing"
	case len(sales.FindAllStringIndex(text, 3)) >= 3:
		return "it is written to sell"
	case len(words) >= 40 && most >= 6 && most*100 > len(words)*12:
		return fmt.Sprintf("it repeats %q %d times in %d words", which, most, len(words))
	case len(links.FindAllStringIndex(text, -1)) >= 5 && len(links.FindAllStringIndex(text, -1))*12 > len(words):
		return "it is a list of links"
	}
	return ""
}

// shingles are the runs of four words of a text; of a shorter one all of it.
func shingles(text string) map[string]bool {
	words := strings.FieldsFunc(strings.ToLower(text), func(r rune) bool { return !unicode.IsLetter(r) && !unicode.IsDigit(r) })
	all := map[string]bool{}
	for i := 0; i+4 <= len(words); i++ {
		all[strings.Join(words[i:i+4], " ")] = true
	}
	if len(all) == 0 {
		all[strings.Join(words, " ")] = true
	}
	return all
}

// alike says that two texts share four fifths of their shingles.
func alike(a, b map[string]bool) bool {
	both := 0
	for s := range a {
		if b[s] {
			both++
		}
	}
	return both*5 >= (len(a)+len(b)-both)*4
}

// worth is how much a page of the web is preferred: 2 for one that is first hand, 1 for one that says of when it is.
func worth(s Source) (n int) {
	address := s.URL
	if address == "" {
		address = s.Path
	}
	if u, err := url.Parse(address); err == nil && primary(u.Hostname()) {
		n += 2
	}
	if !s.Published.IsZero() {
		n++
	}
	return n
}

// primary says that a host speaks for itself: authorities, universities, makers of standards, documentation.
func primary(host string) bool {
	host = strings.ToLower(strings.TrimPrefix(host, "www."))
	for _, end := range []string{".gov", ".edu", ".mil", ".int", "europa.eu", "ietf.org", "rfc-editor.org", "w3.org", "iso.org", "arxiv.org", "doi.org", "kernel.org"} {
		if strings.HasSuffix(host, end) && (strings.HasPrefix(end, ".") || host == end || strings.HasSuffix(host, "."+end)) {
			return true
		}
	}
	for _, label := range []string{".gov.", ".ac.", ".gv.", ".edu."} {
		if strings.Contains(host, label) {
			return true
		}
	}
	return strings.HasPrefix(host, "docs.") || strings.HasPrefix(host, "developer.")
}
