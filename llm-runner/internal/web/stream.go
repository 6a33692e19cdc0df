package web

import (
	"bytes"
	"slices"
	"strings"

	"github.com/yuin/goldmark/ast"
	extast "github.com/yuin/goldmark/extension/ast"
	"github.com/yuin/goldmark/parser"

	"home.arpa/lab/llm-runner/internal/llm"
)

// A stream renders an answer while it arrives. Top-level blocks that later text cannot change any more are closed: they
// are rendered once and never parsed again, so that the work stays in proportion to the text. Everything after them is
// the open tail, which every call renders anew.
//
// What a closed block looks like depends on the text only, with one exception: a link whose definition comes later
// shows as plain text until finish.
type stream struct {
	md     *markdown
	closed []block
	offset int // bytes of the text that belong to closed blocks
	seen   int // bytes of the text up to which complete lines have been looked at
	refs   []parser.Reference

	sent  []block // what the reader has
	known int     // how many of them it has for certain
}

func newStream(md *markdown) *stream { return &stream{md: md} }

// blocks returns the blocks of text, which begins with the text of the call before.
func (s *stream) blocks(text string) []block {
	s.close(text)
	src := []byte(text[s.offset:])
	doc, _ := s.md.parse(src, s.refs, nil)
	return append(slices.Clip(s.closed), s.md.children(src, doc)...)
}

// close moves the tail's beginning past the blocks that are complete. Only complete lines count: how a line begins says
// little about what it becomes.
func (s *stream) close(text string) {
	end := strings.LastIndexByte(text, '\n') + 1
	if end <= max(s.seen, s.offset) {
		return
	}
	s.seen = end
	src := []byte(text[s.offset:end])
	doc, ctx := s.md.parse(src, s.refs, nil)
	open := openFrom(doc)
	if open == nil || open == doc.FirstChild() {
		return
	}
	for n := doc.FirstChild(); n != open; n = n.NextSibling() {
		s.closed = append(s.closed, s.md.render(src, n))
	}
	// Definitions that stand in the tail are found there again; the first one of a name counts, so those do no harm.
	s.refs = ctx.References()
	begins := len(src)
	for n := open; n != nil; n = n.NextSibling() {
		begins = min(begins, lineStart(src, n.Pos()))
	}
	s.offset += begins
}

// openFrom returns the first block that later lines may still change: the last one, and those before it that were cut
// from the same paragraph (link definitions, the lines above a table's head). nil: do not close anything.
func openFrom(doc ast.Node) ast.Node {
	open := doc.LastChild()
	for open != nil {
		if open.Pos() < 0 {
			return nil
		}
		before := open.PreviousSibling()
		if before == nil || !glued(before, open) {
			return open
		}
		open = before
	}
	return nil
}

// glued says that b may be part of the paragraph that a is, or was cut from; then goldmark may also have turned their
// order around.
func glued(a, b ast.Node) bool {
	return a.Pos() >= b.Pos() || a.Kind() == ast.KindLinkReferenceDefinition || a.Kind() == ast.KindParagraph && b.Kind() == extast.KindTable
}

func lineStart(src []byte, pos int) int {
	return bytes.LastIndexByte(src[:min(pos, len(src))], '\n') + 1
}

// A change is the new HTML of the block at an index; in JSON [index, html].
type change [2]any

// update returns what the reader must change to have the blocks of text. The last change is of the last block: what the
// reader has beyond it is to be removed. nil: nothing changed.
func (s *stream) update(text string) []change { return s.diff(s.blocks(text)) }

// finish is update for the whole text of an answer that has ended, and its sources. What it leaves the reader with is
// what a page rendered from the beginning shows.
func (s *stream) finish(text string, citations []llm.Citation) []change {
	if len(s.refs) > 0 {
		s.known = 0 // see the exception above: a reader that came back may have either form
	}
	return s.diff(s.md.blocks(text, citations))
}

// restart begins another text, of a reader who has nothing.
func (s *stream) restart() { *s = stream{md: s.md} }

func (s *stream) diff(now []block) []change {
	var all []change
	for i, b := range now {
		if i >= s.known || s.sent[i] != b {
			all = append(all, change{i, b})
		}
	}
	last := len(now) - 1
	switch {
	case last < 0 && len(s.sent) > 0:
		all = []change{{0, ""}}
	case (len(all) > 0 || len(now) < len(s.sent)) && (len(all) == 0 || all[len(all)-1][0] != last):
		all = append(all, change{last, now[last]})
	}
	s.sent, s.known = now, len(now)
	return all
}
