package vault

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"strings"
	"time"

	"github.com/rogpeppe/go-internal/diff"

	"home.arpa/lab/llm-runner/internal/llm"
	"home.arpa/lab/llm-runner/internal/toolbox"
)

const (
	window   = 24 << 10 // of a note that one call returns, in bytes
	mostHits = 40
)

type readArguments struct {
	Path string `json:"path" jsonschema:"the note's path in the vault, such as projects/garden.md"`
	From int    `json:"from,omitempty" jsonschema:"the line to begin at, from 1; 1 if left out"`
}

type searchArguments struct {
	Text   string `json:"text" jsonschema:"words to find as they stand in a note or in its path; upper and lower case are the same"`
	Folder string `json:"folder,omitempty" jsonschema:"look only below this folder"`
}

type writeArguments struct {
	Path string `json:"path" jsonschema:"the note's path in the vault, ending in .md"`
	Text string `json:"text" jsonschema:"the whole new text of the note; frontmatter that is left out is kept as it was"`
}

type appendArguments struct {
	Path    string `json:"path" jsonschema:"the note's path in the vault, ending in .md; made if it is not there"`
	Text    string `json:"text" jsonschema:"what to add"`
	Heading string `json:"heading,omitempty" jsonschema:"add it at the end of the section with this heading instead of the note's end"`
}

// Tools returns vault_read, vault_search, vault_write and vault_append.
func (v *Vault) Tools() []toolbox.Tool {
	return []toolbox.Tool{
		toolbox.Make(toolbox.Tool{Name: "vault_read", Description: "Reads a note of the person's vault.", Outside: true, Policy: toolbox.Allow, Off: v.missing},
			func(_ context.Context, _ toolbox.Call, a readArguments) (toolbox.Result, error) {
				text, err := v.Read(a.Path)
				if err != nil {
					return toolbox.Result{}, err
				}
				if v.c.hides(strings.TrimSpace(a.Path)) {
					return toolbox.Result{}, fmt.Errorf("path: %q is never sent to models (vault.never_send): ask its person to look there", a.Path)
				}
				text, err = lines(text, a.From)
				return toolbox.Result{Text: text}, err
			}),
		toolbox.Make(toolbox.Tool{Name: "vault_search", Description: "Finds notes of the person's vault by words as they stand in them, or by their names.", Outside: true, Policy: toolbox.Allow, Off: v.missing},
			func(ctx context.Context, _ toolbox.Call, a searchArguments) (toolbox.Result, error) {
				return v.search(ctx, a)
			}),
		changing(v, toolbox.Tool{Name: "vault_write", Description: "Writes a note of the person's vault, new or in the place of an old one, of which a copy is kept."},
			func(a writeArguments) (string, change) {
				return a.Path, func(old string, _ bool) (string, error) {
					if strings.TrimSpace(a.Text) == "" {
						return "", errors.New("text: it is empty: notes are not emptied")
					}
					return llm.Inert(ending(preserve(old, a.Text)), old), nil
				}
			}),
		changing(v, toolbox.Tool{Name: "vault_append", Description: "Adds text to a note of the person's vault."},
			func(a appendArguments) (string, change) {
				return a.Path, func(old string, there bool) (string, error) {
					text, err := add(old, there, a)
					return llm.Inert(text, old), err
				}
			}),
	}
}

// changing makes a tool of changes to a note. What a person has allowed is done only to the text for which it was proposed.
func changing[A any](v *Vault, t toolbox.Tool, read func(A) (string, change)) toolbox.Tool {
	t.Effects, t.Policy, t.Off = true, toolbox.Ask, v.missing
	t.Preview = func(_ context.Context, arguments json.RawMessage) (toolbox.Preview, error) {
		var a A
		if err := toolbox.Arguments(arguments, &a); err != nil {
			return toolbox.Preview{}, err
		}
		p, f := read(a)
		old, text, mark, err := v.propose(p, f)
		if err != nil {
			return toolbox.Preview{}, err
		}
		return toolbox.Preview{Text: shown(p, old, text), Seal: mark}, nil
	}
	return toolbox.Make(t, func(_ context.Context, c toolbox.Call, a A) (toolbox.Result, error) {
		p, f := read(a)
		if err := v.Write(p, c.Seal, f); err != nil {
			return toolbox.Result{}, err
		}
		return toolbox.Result{Text: "Written: " + p}, nil
	})
}

// shown is a change as a unified diff.
func shown(p, old, text string) string {
	if old == "" {
		return "A new note, " + p + ":\n\n" + text
	}
	_, change, _ := strings.Cut(string(diff.Diff(p, []byte(old), p+" (proposed)", []byte(text))), "\n") // without the command line
	return change
}

// lines are those of a text from a number on, as many as fit into one answer.
func lines(text string, from int) (string, error) {
	all := strings.SplitAfter(text, "\n")
	from = max(from, 1)
	if from > len(all) {
		return "", fmt.Errorf("from: the note has %d lines", len(all))
	}
	var b strings.Builder
	for i, line := range all[from-1:] {
		if b.Len() > 0 && b.Len()+len(line) > window {
			fmt.Fprintf(&b, "[the note goes on: call again with from=%d of %d lines]", from+i, len(all))
			break
		}
		b.WriteString(line)
	}
	return b.String(), nil
}

// add puts a text at the end of a note or of one of its sections.
func add(old string, there bool, a appendArguments) (string, error) {
	text := strings.TrimRight(a.Text, "\n")
	if strings.TrimSpace(text) == "" {
		return "", errors.New("text: it is empty")
	}
	heading := strings.TrimSpace(strings.TrimLeft(a.Heading, "# "))
	if heading == "" {
		if !there || old == "" {
			return text + "\n", nil
		}
		return ending(old) + text + "\n", nil
	}
	all := strings.SplitAfter(old, "\n")
	at, level, fence := -1, 0, ""
	for i, line := range all {
		bare := strings.TrimSpace(line)
		if fence != "" || strings.HasPrefix(bare, "```") || strings.HasPrefix(bare, "~~~") {
			switch {
			case fence == "":
				fence = bare[:3]
			case strings.HasPrefix(bare, fence) && strings.Trim(bare, fence[:1]) == "":
				fence = ""
			}
			continue
		}
		n := len(line) - len(strings.TrimLeft(line, "#"))
		if n == 0 || n > 6 || !strings.HasPrefix(line[n:], " ") {
			continue
		}
		if at >= 0 && n <= level {
			return strings.Join(all[:at], "") + section(strings.Join(all[at:i], ""), text) + "\n" + strings.Join(all[i:], ""), nil
		}
		if at < 0 && strings.EqualFold(strings.TrimSpace(strings.Trim(line[n:], "# \r\n")), heading) {
			at, level = i, n
		}
	}
	if at < 0 {
		return "", fmt.Errorf("heading: the note has no heading %q", heading)
	}
	return strings.Join(all[:at], "") + section(strings.Join(all[at:], ""), text), nil
}

func section(old, text string) string { return strings.TrimRight(old, "\n") + "\n" + text + "\n" }

// search looks through the notes.
func (v *Vault) search(ctx context.Context, a searchArguments) (toolbox.Result, error) {
	want := strings.ToLower(strings.TrimSpace(a.Text))
	if want == "" {
		return toolbox.Result{}, errors.New("text: it is empty")
	}
	root, err := v.open()
	if err != nil {
		return toolbox.Result{}, err
	}
	defer root.Close()
	from := strings.Trim(a.Folder, "/ ")
	if from == "" {
		from = "."
	}
	if !fs.ValidPath(from) || strings.HasPrefix(from, ".") && from != "." {
		return toolbox.Result{}, fmt.Errorf("folder: %q is not one of the vault", a.Folder)
	}
	var b strings.Builder
	hits, hidden := 0, false
	err = fs.WalkDir(root.FS(), from, func(p string, d fs.DirEntry, err error) error {
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case err != nil:
			if p == from {
				return fmt.Errorf("folder: %q cannot be read", a.Folder)
			}
			return nil
		case p != from && strings.HasPrefix(d.Name(), "."):
			if d.IsDir() {
				return fs.SkipDir
			}
			return nil
		case hits >= mostHits:
			return fs.SkipAll
		case d.IsDir() || !d.Type().IsRegular() || !strings.EqualFold(path.Ext(p), ".md"):
			return nil
		case v.c.hides(p):
			hidden = true // whether it has the words is not said either
			return nil
		}
		text, err := read(root, p)
		if err != nil {
			return nil //nolint:nilerr // one that cannot be read has nothing to find
		}
		found := strings.Contains(strings.ToLower(p), want)
		if found {
			fmt.Fprintf(&b, "%s\n", p)
			hits++
		}
		for i, line := range strings.Split(text, "\n") {
			if !strings.Contains(strings.ToLower(line), want) {
				continue
			}
			if hits++; hits > mostHits {
				break
			}
			if r := []rune(strings.TrimSpace(line)); len(r) > 200 {
				line = string(r[:200]) + "\u2026"
			}
			fmt.Fprintf(&b, "%s:%d: %s\n", p, i+1, strings.TrimSpace(line))
		}
		return nil
	})
	if err != nil {
		return toolbox.Result{}, err
	}
	if hits == 0 {
		b.WriteString("No note has these words.\n")
	}
	if hits >= mostHits {
		fmt.Fprintf(&b, "[and more: only the first %d are shown]\n", mostHits)
	}
	if hidden {
		b.WriteString("[notes that are never sent to models were not looked at]\n")
	}
	return toolbox.Result{Text: b.String()}, nil
}

// Put writes a note as this program made it, in which nothing runs. What stood there before is kept.
func (v *Vault) Put(p, text string) error {
	text = llm.Inert(text, "")
	if had, err := v.Read(p); err == nil && had == text {
		return nil
	}
	return v.Write(p, "", func(string, bool) (string, error) { return text, nil })
}

// Save writes a page that was fetched as a note, in a folder, and returns its path. A page of the same name is written over.
func (v *Vault) Save(folder, title, host, source, author, text string, published, fetched time.Time) (string, error) {
	var b strings.Builder
	b.WriteString("---\n")
	line := func(key, value string) {
		if value != "" {
			quoted, _ := json.Marshal(value) // JSON strings are YAML strings
			fmt.Fprintf(&b, "%s: %s\n", key, quoted)
		}
	}
	line("title", title)
	line("source", source)
	line("author", author)
	if !published.IsZero() {
		line("published", published.Format(time.DateOnly))
	}
	line("fetched", fetched.Format(time.RFC3339))
	b.WriteString("---\n\n" + strings.TrimSpace(text) + "\n")
	p := path.Join(folder, slug(host), slug(title)+".md")
	err := v.Write(p, "", func(string, bool) (string, error) { return llm.Inert(b.String(), ""), nil })
	return p, err
}

// slug is a file name made of a text.
func slug(s string) string {
	var b strings.Builder
	for _, r := range strings.ToLower(s) {
		switch {
		case r >= 'a' && r <= 'z', r >= '0' && r <= '9', r == '.' && b.Len() > 0, r > 0xbf && r < 0x250:
			b.WriteRune(r)
		case b.Len() > 0 && !strings.HasSuffix(b.String(), "-"):
			b.WriteByte('-')
		}
		if b.Len() >= 80 {
			break
		}
	}
	if out := strings.Trim(b.String(), "-."); out != "" {
		return out
	}
	return "page"
}
