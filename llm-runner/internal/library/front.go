package library

import (
	"bytes"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// frontEnd returns where the frontmatter at the beginning of text ends, or 0 where there is none: a line of three dashes, at
// the very top, up to the next one.
func frontEnd(text []byte) int {
	s := scanner{text: text}
	line, at := s.line(0)
	if string(bytes.TrimRight(bytes.TrimPrefix(line, bom), " \t")) != "---" {
		return 0
	}
	for at < len(text) {
		line, next := s.line(at)
		if l := string(bytes.TrimRight(line, " \t")); l == "---" || l == "..." {
			return next
		}
		at = next
	}
	return 0
}

// maxFront bounds what is given to the YAML parser; frontmatter is a few hundred bytes.
const maxFront = 64 << 10

// readFront takes what it understands of the frontmatter; what it does not understand is no reason to lose a note.
func (d *Doc) readFront(text []byte) {
	text = bytes.TrimSpace(bytes.TrimPrefix(text, bom))
	text = bytes.TrimPrefix(text, []byte("---"))
	text = bytes.TrimSuffix(bytes.TrimSuffix(text, []byte("---")), []byte("..."))
	if len(text) > maxFront {
		return
	}
	var fields map[string]yaml.Node
	if yaml.Unmarshal(text, &fields) != nil {
		return
	}
	for _, name := range slices.Sorted(maps.Keys(fields)) {
		node := fields[name]
		switch strings.ToLower(name) {
		case "title":
			d.Title = strings.Join(words(node, ""), " ")
		case "alias", "aliases":
			d.Aliases = append(d.Aliases, words(node, ",")...)
		case "tag", "tags":
			for _, tag := range words(node, ", ") {
				d.Tags = append(d.Tags, strings.TrimPrefix(tag, "#"))
			}
		case "type":
			d.Type = strings.ToLower(strings.Join(words(node, ""), " "))
		case "date", "created", "day":
			if m := dayPattern.FindString(node.Value); m != "" {
				d.Day = m
			}
		case "generated":
			d.Generated = node.Value == "true"
		}
	}
}

var (
	tagPattern  = regexp.MustCompile(`(?:^|[\s(])#([\p{L}\p{N}_/-]*\p{L}[\p{L}\p{N}_/-]*)`)
	codePattern = regexp.MustCompile("`+[^`]*`+")
)

// inlineTags takes the tags that stand in a block's text, as Obsidian does: #project/garden, with a letter in it, not in code.
func (d *Doc) inlineTags(text []byte, b block) {
	if b.kind == code || b.kind == front || b.kind == made {
		return
	}
	var fence []byte // that is open: in a list or a quote
	for line := range bytes.Lines(text[b.start:b.end]) {
		if bytes.IndexByte(line, '#') < 0 && bytes.IndexByte(line, '`') < 0 && bytes.IndexByte(line, '~') < 0 {
			continue
		}
		inner := bytes.TrimLeft(line, "> \t")
		switch f := fenceOf(bytes.TrimRight(inner, "\r\n")); {
		case fence != nil:
			if bytes.HasPrefix(inner, fence) {
				fence = nil
			}
			continue
		case f != nil:
			fence = f
			continue
		}
		if _, ok := indent(line); !ok && b.kind == para {
			continue
		}
		for _, m := range tagPattern.FindAllSubmatch(codePattern.ReplaceAll(line, []byte("`")), -1) {
			if tag := strings.Trim(string(m[1]), "/"); !slices.Contains(d.Tags, tag) {
				d.Tags = append(d.Tags, tag)
			}
		}
	}
}

var dayPattern = regexp.MustCompile(`\b(19|20)\d\d-[01]\d-[0-3]\d\b`)

// words returns the texts of a list, or of one text that is separated by the characters of sep, where it has any.
func words(node yaml.Node, sep string) []string {
	var many []any
	if node.Decode(&many) != nil {
		var one any
		if node.Decode(&one) != nil || one == nil {
			return nil
		}
		text := fmt.Sprint(one)
		if sep == "" {
			return []string{strings.TrimSpace(text)}
		}
		return trimmed(strings.FieldsFunc(text, func(r rune) bool { return strings.ContainsRune(sep, r) }))
	}
	var all []string
	for _, x := range many {
		if x != nil {
			all = append(all, fmt.Sprint(x))
		}
	}
	return trimmed(all)
}

func trimmed(in []string) []string {
	var out []string
	for _, s := range in {
		if s = strings.TrimSpace(s); s != "" {
			out = append(out, s)
		}
	}
	return out
}
