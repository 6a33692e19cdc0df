package graph

import (
	"regexp"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"home.arpa/lab/llm-runner/internal/library"
	"home.arpa/lab/llm-runner/internal/llm"
)

// A Claim is a sentence of a draft.
type Claim struct {
	Section  string         `json:"section,omitempty"`  // of the report
	Text     string         `json:"text"`               // with the numbers of what it cites
	Sources  []int          `json:"sources"`            // numbers, 1-based
	Words    []string       `json:"words,omitempty"`    // that it quotes of each of Sources; "" none
	Evidence []llm.Citation `json:"evidence,omitempty"` // the sentences of each of Sources that it rests on
	Lead     string         `json:"lead,omitempty"`     // the words before the list that it stands in: it is checked with them
	After    string         `json:"after"`              // the white space that follows
	Struck   string         `json:"struck"`             // why it is left out; "" it stands
}

// Why a claim is struck.
const (
	citesNothing  = "it cites nothing"
	noSuchSource  = "it cites a source that there is not"
	notItsWords   = "the words that it quotes do not stand in that source"
	notItsNumber  = "it has a number that its source does not have"
	notItsAddress = "it has an address that its source does not have"
	saysNoSuch    = "its source does not say so"
	unchecked     = "it was not checked: the budget is used up"
	uncheckable   = "it could not be checked"
	notSeen       = "it cites what its writer has not seen"
	hasChanged    = "its source has changed since it was read"
)

// Plain is the claim without its citations, and without what a page could load or lead away with: pictures, links, markup.
func (c *Claim) Plain() string { return plain(c.Text) }

func plain(text string) string {
	text = citePattern.ReplaceAllString(text, "")
	text = pictures.ReplaceAllString(text, "$1")
	return strings.TrimSpace(strings.NewReplacer(" .", ".", " ,", ",", "<", "\\<").Replace(text))
}

var (
	citePattern = regexp.MustCompile(`\s*\[\s*\d+(?:\s*,\s*\d+)*\s*\]`)
	digits      = regexp.MustCompile(`\d+`)
	// pictures are pictures and links of Markdown, and those of Obsidian's wikis.
	pictures = regexp.MustCompile(`!?\[+([^\[\]\n]*)\]+(?:\([^)\n]*\)|\[[^\]\n]*\])?`)
	images   = regexp.MustCompile(`!\[+([^\[\]\n]*)\]+(?:\([^)\n]*\))?`)
	// quoted is a mark with the words that it quotes, [2: "words"], whatever kind of quotation marks stands around them.
	quoted = regexp.MustCompile(`(?is)\[\s*(?:sources?|quellen?)?\s*#?(\d{1,3}(?:\s*[,;]\s*\d{1,3})*)\s*(?:[:,]?\s*["“”„«»‚‘'](.{0,1000}?)["“”„«»‘’']\s*)?\]`)
)

// marks takes the words out of the marks of a draft, so that [2: "words"] is [2]. words has one entry for each mark, in their order.
func marks(draft string) (text string, words []string) {
	text = quoted.ReplaceAllStringFunc(draft, func(mark string) string {
		m := quoted.FindStringSubmatch(mark)
		words = append(words, m[2])
		return "[" + strings.ReplaceAll(m[1], ";", ",") + "]"
	})
	text = images.ReplaceAllStringFunc(text, func(image string) string { // before it is cut into sentences, of which its mark would be an end
		if m := images.FindStringSubmatch(image); digits.FindString(m[1]) == "" {
			return m[1]
		}
		return image
	})
	return text, words
}

// claims takes a draft apart into sentences. One that cites nothing, or a source that there is not, is struck: nothing is shown that cannot
// be looked up. A line that leads to a list (it ends with a colon) needs no source of its own: it is a part of each statement of the list. Headings
// are left out: titles come from the plan.
func claims(draft string, sources int) []Claim {
	var all []Claim
	text, words := marks(draft)
	lead, before := "", "" // before: what white space stands before this sentence; "" the lead itself does
	for _, s := range sentences(text) {
		c := Claim{Text: strings.TrimSpace(s)}
		c.After = s[len(strings.TrimRightFunc(s, unicode.IsSpace)):]
		for _, m := range citePattern.FindAllString(c.Text, -1) {
			said := ""
			if len(words) > 0 {
				said, words = words[0], words[1:]
			}
			for _, d := range digits.FindAllString(m, -1) {
				n, err := strconv.Atoi(d)
				if err != nil || n < 1 || n > sources {
					c.Struck = noSuchSource
					continue
				}
				c.Sources, c.Words = append(c.Sources, n), append(c.Words, said)
			}
		}
		if len(c.Sources) == 0 && c.Struck == "" {
			switch {
			case !leads(c.Text):
				c.Struck = citesNothing
			case strings.HasPrefix(c.Text, "#"):
				lead = ""
				continue
			default:
				lead, before = c.Text, ""
				all = append(all, c)
				continue
			}
		}
		if strings.Count(before, "\n") > 1 && !listed.MatchString(c.Text) {
			lead = ""
		}
		c.Lead, before = lead, c.After
		all = append(all, c)
	}
	return all
}

// longestLead bounds a line that needs no source, in bytes.
const longestLead = 100

// leads says that a line only leads to others: a heading, or the words before a list. One with a number in it says more than that.
func leads(text string) bool {
	return len(text) <= longestLead && (strings.HasPrefix(text, "#") || strings.HasSuffix(text, ":")) && !digits.MatchString(text)
}

// count is how many claims say something that needs a source.
func count(all []Claim) (n int) {
	for _, c := range all {
		if len(c.Sources) > 0 || !leads(c.Text) {
			n++
		}
	}
	return n
}

// ground finds what a claim rests on in its sources, and strikes one that says what cannot stand there, whoever checks it: words that it
// quotes from a source which does not have them, numbers and addresses that no source of it has.
func (c *Claim) ground(sources []Source) {
	if c.Struck != "" || len(c.Sources) == 0 {
		return
	}
	c.Evidence = nil
	var evidence strings.Builder
	for i, n := range c.Sources {
		from := sources[n-1].Citation
		at, to := 0, len(from.Quote)
		if words := strings.TrimSpace(c.Words[i]); words != "" {
			var ok bool
			if at, to, ok = library.Locate(from.Quote, words); !ok {
				c.Struck = notItsWords
				return
			}
			at, to = sentencesAround(from.Quote, at, to)
		}
		e := library.Narrow(from, at, to)
		c.Evidence = append(c.Evidence, e)
		evidence.WriteString(strings.Join(e.Heading, "\n") + "\n" + e.Quote + "\n")
	}
	text := item.ReplaceAllString(citePattern.ReplaceAllString(c.Text, ""), "") + "\n" + c.Lead
	has := numbers(evidence.String(), true)
	for n := range numbers(text, false) {
		if !has[n] {
			c.Struck = notItsNumber
			return
		}
	}
	for _, a := range address.FindAllString(text, -1) {
		if !strings.Contains(evidence.String(), strings.TrimRight(a, ".,;:!?)*_")) {
			c.Struck = notItsAddress
			return
		}
	}
	for _, m := range speech.FindAllStringSubmatch(text, -1) {
		if _, _, ok := library.Locate(evidence.String(), m[1]); !ok && len(strings.Fields(m[1])) > 2 {
			c.Struck = notItsWords
			return
		}
	}
}

// sentencesAround widens the bytes [from, to) of a text to the sentences that they stand in.
func sentencesAround(text string, from, to int) (int, int) {
	at, start, end := 0, 0, len(text)
	for _, s := range sentences(text) {
		if at <= from {
			start = at
		}
		if at += len(s); at >= to {
			end = at
			break
		}
	}
	return start, end
}

var (
	listed  = regexp.MustCompile(`^(?:[-*+•]|\d{1,3}[.)])\s`)
	item    = regexp.MustCompile(`^\s*(?:#+\s*)?(?:\d{1,3}[.)]\s+)?`) // what an item of a list begins with
	number  = regexp.MustCompile(`\d{1,3}(?:[., '\x{a0}\x{202f}]\d{3}\b)+(?:[.,]\d+)?|\d+(?:[.,]\d+)?`)
	dotted  = regexp.MustCompile(`\b\d{1,2}\.\d{1,2}\.\d{2,4}\b`) // a date: each part is a number
	address = regexp.MustCompile(`(?i)\b(?:https?://|www\.)[^\s<>"\])]+`)
	speech  = regexp.MustCompile(`["“„«]([^"“”„«»\n]{3,400})["”“»]`)
	grouped = regexp.MustCompile(`^\d{1,3}(?:[., '\x{a0}\x{202f}]\d{3})+$`)
)

// counted are numbers that sources write as words.
var counted = map[string]string{"one": "1", "once": "1", "two": "2", "twice": "2", "three": "3", "four": "4", "five": "5", "six": "6", "seven": "7", "eight": "8", "nine": "9",
	"ten": "10", "eleven": "11", "twelve": "12", "ein": "1", "eine": "1", "einen": "1", "einem": "1", "einer": "1", "eins": "1", "einmal": "1", "zwei": "2", "zweimal": "2", "drei": "3",
	"dreimal": "3", "vier": "4", "fünf": "5", "sechs": "6", "sieben": "7", "acht": "8", "neun": "9", "zehn": "10", "elf": "11", "zwölf": "12",
	"january": "1", "february": "2", "march": "3", "april": "4", "may": "5", "june": "6", "july": "7", "august": "8", "september": "9", "october": "10", "november": "11", "december": "12",
	"januar": "1", "februar": "2", "märz": "3", "mai": "5", "juni": "6", "juli": "7", "oktober": "10", "dezember": "12"}

// numbers are those of a text, each in one way of writing: 1,200 and 1.200 and 1 200 are 1200, 3,50 and 3.5 are 3.5, 05 is 5. words says
// that those written as words count too.
func numbers(text string, words bool) map[string]bool {
	all := map[string]bool{}
	text = dotted.ReplaceAllStringFunc(text, func(d string) string { return strings.ReplaceAll(d, ".", " / ") })
	for _, n := range number.FindAllString(text, -1) {
		all[written(n)] = true
	}
	if words {
		for _, w := range strings.FieldsFunc(strings.ToLower(text), func(r rune) bool { return !unicode.IsLetter(r) }) {
			if n := counted[w]; n != "" {
				all[n] = true
			}
		}
	}
	return all
}

// written is how a number is written down in one way.
func written(n string) string {
	if grouped.MatchString(n) {
		return level(strings.Join(digits.FindAllString(n, -1), ""))
	}
	if i := strings.LastIndexAny(n, ".,"); i > 0 && !strings.ContainsAny(n[i+1:], ".,") {
		return level(strings.Join(digits.FindAllString(n[:i], -1), "") + "." + n[i+1:])
	}
	return level(strings.Join(digits.FindAllString(n, -1), ""))
}

// level writes 05 as 5 and 3.50 as 3.5.
func level(n string) string {
	if strings.Contains(n, ".") {
		n = strings.TrimSuffix(strings.TrimRight(n, "0"), ".")
	}
	if n = strings.TrimLeft(n, "0"); n == "" || n[0] == '.' {
		n = "0" + n
	}
	return n
}

// abbreviations end with a full stop and no sentence.
var abbreviations = map[string]bool{"e.g": true, "i.e": true, "etc": true, "cf": true, "vs": true, "no": true, "mr": true, "mrs": true, "dr": true, "st": true, "approx": true,
	"z.b": true, "d.h": true, "u.a": true, "bzw": true, "usw": true, "ca": true, "nr": true, "evtl": true, "ggf": true, "vgl": true, "max": true, "min": true}

// sentences cuts text after each sentence and each line, white space and citations that follow included. Joined they are text.
func sentences(text string) []string {
	var all []string
	start := 0
	for at := 0; at < len(text); {
		r, size := utf8.DecodeRuneInString(text[at:])
		end := at + size
		switch {
		case r == '\n':
		case (r == '.' || r == '!' || r == '?' || r == '…') && stops(text[start:at], r, text[end:]):
			for end < len(text) && strings.ContainsRune(`.!?"')”’»`, rune(text[end])) && text[end] < utf8.RuneSelf {
				end++
			}
			if m := trailing.FindString(text[end:]); m != "" {
				end += len(m)
			}
		default:
			at = end
			continue
		}
		for end < len(text) {
			r, size := utf8.DecodeRuneInString(text[end:])
			if !unicode.IsSpace(r) {
				break
			}
			end += size
		}
		all, start, at = append(all, text[start:end]), end, end
	}
	if start < len(text) {
		all = append(all, text[start:])
	}
	return all
}

// trailing is citations behind the full stop.
var trailing = regexp.MustCompile(`^(?:\s?\[\s*\d+(?:\s*,\s*\d+)*\s*\])+`)

// stops says that a mark ends the sentence before it.
func stops(before string, mark rune, after string) bool {
	next, _ := utf8.DecodeRuneInString(after)
	if after != "" && !unicode.IsSpace(next) && !strings.ContainsRune(`.!?"')[”’»`, next) {
		return false // 3.5, example.org
	}
	if mark != '.' {
		return true
	}
	word := before
	if i := strings.LastIndexFunc(before, func(r rune) bool { return unicode.IsSpace(r) || r == '(' }); i >= 0 {
		_, size := utf8.DecodeRuneInString(before[i:])
		word = before[i+size:]
	}
	if digits.FindString(word) == word && word != "" {
		return strings.TrimSpace(before) != word && !continues(after) // "3." begins an item of a list; "am 3. Mai"
	}
	return !abbreviations[strings.ToLower(word)] && !(utf8.RuneCountInString(word) == 1 && unicode.IsUpper([]rune(word)[0]))
}

// continues says that after a number with a full stop the sentence goes on: "3. Mai".
func continues(after string) bool {
	word := strings.TrimLeftFunc(after, unicode.IsSpace)
	for _, month := range []string{"Jan", "Feb", "Mär", "Apr", "Mai", "Jun", "Jul", "Aug", "Sep", "Okt", "Nov", "Dez"} {
		if strings.HasPrefix(word, month) {
			return true
		}
	}
	r, _ := utf8.DecodeRuneInString(word)
	return unicode.IsLower(r)
}
