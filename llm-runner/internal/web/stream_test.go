package web

import (
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"testing"

	"home.arpa/lab/llm-runner/internal/llm"
)

// pieces are what answers are made of; joined in any order they meet most of what Markdown can do to a neighbour.
var pieces = []string{
	"A paragraph of *some* text with `code`.\n\n", "Two lines\nof one paragraph.\n", "no end of line", "\n", "\n\n",
	"# Heading\n", "Underlined\n=====\n", "Underlined too\n---\n", "---\n", "***\n\n",
	"- one\n- two\n\n- loose\n", "* star\n", "1. first\n2. second\n   - nested\n     more\n", "14. not one\n", "- [x] done\n- [ ] not\n",
	"  continued\n", "    indented code\n\n    goes on\n", "\tindented by a tab\n",
	"```go\nfunc main() {\n\n\tx := 1\n}\n```\n", "```\nnever closed\n\n# not a heading\n", "~~~\ntildes\n~~~\n", "```a`b\n",
	"| a | b |\n|---|--:|\n| 1 | 2 |\n", "text\n| a | b |\n|---|---|\n| 1 |\n", "| row | alone |\n", "|---|\n",
	"> quote\nlazy\n", "> outer\n> > inner\n> - list\n>   ```sh\n>   x\n>   ```\n", ">", "> \n",
	"[a]: https://example.com/a\n", "[a]: https://example.com/b 'title'\n", "[b]:\nhttps://example.com/c\n\"ti\ntle\"\n", "See [a], [b][] and [text][a].\n\n", "[b]: x\ny\n",
	"<div>\n<b>raw</b>\n</div>\n\n", "<!-- a\n\ncomment -->\n", "<script>\n\nalert(1)\n</script>\n", "<pre>\n",
	"A source [1] and [2].\n", "https://example.com/auto and a hard  \nbreak\\\n", "#hashtag\n", "#", "1.", "-", "+ plus\n", "=", "===\n",
	"Umlaut äöü – dash 日本語\n", "\r\n", "line\r\nline\r\n\r\n", "&amp; &lt;\n", "\\# not a heading\n", "![img](https://example.com/x.png)\n",
}

// reader is what a page does with changes.
type reader struct{ blocks []block }

func (r *reader) apply(all []change) {
	for _, c := range all {
		i := c[0].(int)
		for len(r.blocks) <= i {
			r.blocks = append(r.blocks, "")
		}
		r.blocks[i] = c[1].(string)
	}
	if len(all) > 0 {
		r.blocks = r.blocks[:all[len(all)-1][0].(int)+1]
	}
}

func (r *reader) same(want []block) bool {
	return slices.Equal(r.blocks, want) || len(want) == 0 && (len(r.blocks) == 0 || slices.Equal(r.blocks, []block{""}))
}

func someText(r *rand.Rand) string {
	var b strings.Builder
	for range 1 + r.IntN(9) {
		b.WriteString(pieces[r.IntN(len(pieces))])
	}
	return b.String()
}

// However an answer is cut, what the reader has in the end is what a page rendered from the beginning shows; also a
// reader who came back in the middle with what another stream had shown.
func TestAStreamEndsAsTheWholeTextRenders(t *testing.T) {
	md := newMarkdown()
	sources := []llm.Citation{{Path: "a.md", End: 3, Line: 1}}
	for seed := range uint64(400) {
		r := rand.New(rand.NewPCG(seed, 1))
		text := someText(r)
		var cite []llm.Citation
		if seed%3 == 0 {
			cite = sources
		}
		var page, back reader
		s := newStream(md)
		var resumed *stream
		for at := 0; at < len(text); {
			at = min(at+1+r.IntN(12), len(text))
			page.apply(s.update(text[:at]))
			if resumed != nil {
				back.apply(resumed.update(text[:at]))
			} else if r.IntN(20) == 0 {
				// The page keeps its blocks; the new stream works out what they are from the text alone.
				back.blocks = slices.Clone(page.blocks)
				resumed = newStream(md)
				resumed.update(text[:at])
			}
		}
		page.apply(s.finish(text, cite))
		want := md.blocks(text, cite)
		if !page.same(want) {
			t.Fatalf("seed %d, text %q\n got %q\nwant %q", seed, text, page.blocks, want)
		}
		if resumed != nil {
			back.apply(resumed.finish(text, cite))
			if !back.same(want) {
				t.Fatalf("seed %d, came back, text %q\n got %q\nwant %q", seed, text, back.blocks, want)
			}
		}
	}
}

// Without link definitions even every moment in between is exact: a prefix shows as if it were the whole answer.
func TestEveryPrefixShowsAsIfItWereTheWhole(t *testing.T) {
	md := newMarkdown()
	for seed := range uint64(200) {
		r := rand.New(rand.NewPCG(seed, 2))
		text := someText(r)
		if strings.Contains(text, "]:") {
			continue
		}
		s := newStream(md)
		var page reader
		for at := 0; at < len(text); {
			at = min(at+1+r.IntN(12), len(text))
			page.apply(s.update(text[:at]))
			if want := md.blocks(text[:at], nil); !page.same(want) {
				t.Fatalf("seed %d, prefix %q\n got %q\nwant %q", seed, text[:at], page.blocks, want)
			}
		}
	}
}

func TestClosedBlocksAreSentOnce(t *testing.T) {
	s := newStream(newMarkdown())
	text, sent := "", map[int]int{}
	for i := range 50 {
		for _, w := range []string{"Paragraph ", fmt.Sprint(i), " of the answer.", "\n\n"} {
			text += w
			for _, c := range s.update(text) {
				sent[c[0].(int)]++
			}
		}
	}
	for i := range 50 {
		if sent[i] > 4 {
			t.Errorf("block %d was sent %d times", i, sent[i])
		}
	}
	if s.offset < len(text)-100 {
		t.Errorf("only %d of %d bytes are closed", s.offset, len(text))
	}
}

// The work for an answer grows with its length, not with its square: ten times the text may take at most thirty times the
// memory in all (a square would take a hundred).
func TestStreamingCostIsLinear(t *testing.T) {
	md := newMarkdown()
	cost := func(paragraphs int) uint64 {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		s, text := newStream(md), strings.Repeat(strings.Repeat("some *words* of it, ", 10)+"\n\n", paragraphs)
		for n := 20; n <= len(text); n += 20 {
			s.update(text[:n])
		}
		runtime.ReadMemStats(&after)
		return after.TotalAlloc - before.TotalAlloc
	}
	cost(1)
	if small, large := cost(20), cost(200); large > 30*small {
		t.Errorf("20 paragraphs took %d bytes, 200 took %d", small, large)
	}
}

func BenchmarkStream(b *testing.B) {
	md := newMarkdown()
	for _, size := range []int{1, 10, 100} {
		b.Run(fmt.Sprintf("%dkB", len(answerOf2kB)*size/1000), func(b *testing.B) {
			text := strings.Repeat(answerOf2kB, size)
			for b.Loop() {
				s := newStream(md)
				for at := 0; at < len(text); at += 400 {
					s.update(text[:at])
				}
				s.finish(text, nil)
			}
		})
	}
}

// answerOf2kB is a long answer as people get them: prose, a list, some code, a table.
var answerOf2kB = strings.Repeat("A paragraph with *emphasis*, `code` and [a link](https://example.com), as long as paragraphs of answers are wont to be, "+
	"which is to say that it goes on for a sentence or two after the point was made.\n\n", 5) +
	"1. one point, with a few words,\n2. another one,\n3. and the last.\n\n```go\n" + strings.Repeat("\tif x, err := f(i); err != nil {\n\t\treturn x, err // of f\n\t}\n", 6) +
	"```\n\n| Tier | Keeps |\n|---|--:|\n| fast | 7 days |\n| slow | 4 weeks |\n\nAnd a last word.\n\n"
