package library

import (
	"strings"

	"home.arpa/lab/llm-runner/internal/llm"
)

// Sizes of quotes in bytes: a passage of up to quoteWhole is quoted whole, of a longer one the part of about quoteTarget
// that answers.
const (
	quoteWhole  = 700
	quoteTarget = 500
)

// trim narrows a hit to what answers: its headings and blank edges go, and of a long passage only the blocks, or sentences
// of a long block, stay that hold the most of the question. What is left is still the bytes [Start, End) of the file.
func trim(h Hit) llm.Citation {
	c := h.Citation
	from, to := 0, len(c.Quote)
	if h.front {
		return narrow(c, from, to)
	}
	units := parts(c.Quote, quoteTarget)
	for len(units) > 1 && units[0].kind == head {
		units = units[1:]
	}
	if len(units) == 0 {
		return narrow(c, from, to)
	}
	from = units[0].start
	if to-from > quoteWhole {
		from, to = window(c.Quote, units, h.language, h.weights)
	}
	return narrow(c, from, to)
}

// parts takes a passage apart into blocks, and blocks of text of more than limit bytes into items, sentences or lines.
func parts(text string, limit int) []block {
	var all []block
	for _, b := range scan([]byte(text)) {
		if b.kind == front { // a rule at the top of a passage is not the top of a note
			b.kind = para
		}
		if b.end-b.start <= limit || b.kind == code || b.kind == table || b.kind == head {
			all = append(all, b)
			continue
		}
		at := b.start
		var ends []int
		if b.kind == list {
			ends = itemStarts(text[b.start:b.end])
		}
		if len(ends) == 0 {
			ends = sentenceEnds(text[b.start:b.end])
		}
		for _, end := range append(ends, b.end-b.start) {
			all = append(all, block{kind: b.kind, start: at, end: b.start + end})
			at = b.start + end
		}
	}
	return all
}

// itemStarts returns where the items of a list begin, the first one left out.
func itemStarts(text string) []int {
	var starts []int
	for i := 0; ; {
		n := strings.IndexByte(text[i:], '\n')
		if n < 0 {
			return starts
		}
		i += n + 1
		if line, _, _ := strings.Cut(text[i:], "\n"); isItem([]byte(line)) {
			starts = append(starts, i)
		}
	}
}

// window chooses the run of units that holds the most of the question within quoteTarget bytes; one unit is always taken,
// whatever its length. A unit that ends in a colon brings the one it introduces.
func window(text string, units []block, l language, weights map[string]float64) (from, to int) {
	words := make([][]token, len(units))
	for i, u := range units {
		words[i] = tokensLike(text[u.start:u.end], l, weights)
	}
	best, first, last := -1.0, 0, 0
	for i := range units {
		seen, sum := map[string]bool{}, 0.0
		for j := i; j < len(units); j++ {
			if j > i && units[j].end-units[i].start > quoteTarget && !introduces(text, units[j-1]) {
				break
			}
			for _, t := range words[j] {
				if w, ok := weights[t.stem]; ok && !seen[t.stem] {
					seen[t.stem] = true
					sum += w
				}
			}
			if sum > best { // of equal ones the first, and the shortest
				best, first, last = sum, i, j
			}
		}
	}
	for last+1 < len(units) && introduces(text, units[last]) {
		last++
	}
	// Room that is left goes to what comes before and after: an answer out of context is hard to read.
	for grown := true; grown; {
		grown = false
		if first > 0 && units[last].end-units[first-1].start <= quoteTarget {
			first--
			grown = true
		}
		if last+1 < len(units) && units[last+1].end-units[first].start <= quoteTarget {
			last++
			grown = true
		}
	}
	return units[first].start, units[last].end
}

func introduces(text string, u block) bool {
	return strings.HasSuffix(strings.TrimSpace(text[u.start:u.end]), ":")
}

// Narrow cuts a citation down to the bytes [from, to) of its quote, blank edges left out.
func Narrow(c llm.Citation, from, to int) llm.Citation { return narrow(c, from, to) }

// narrow cuts a citation down to the bytes [from, to) of its quote, blank edges left out.
func narrow(c llm.Citation, from, to int) llm.Citation {
	q := c.Quote[from:to]
	from += len(q) - len(strings.TrimLeft(q, "\r\n"))
	q = strings.TrimLeft(q, "\r\n")
	q = strings.TrimRight(q, " \t\r\n")
	c.Line += strings.Count(c.Quote[:from], "\n")
	c.Start += from
	c.Quote = q
	c.End = c.Start + len(q)
	c.EndLine = c.Line + strings.Count(q, "\n")
	return c
}
