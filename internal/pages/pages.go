// Package pages reads the commands that pages of Markdown tell people to type, and holds them against a program's flags, so that a page
// cannot keep a command that the program does not take. Tests of both rooms use it; nothing is run.
package pages

import (
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// A Command is one call of the program, as a page writes it.
type Command struct {
	Page   string // slash-separated, below the root
	Line   int
	Words  []string // behind the program's name
	Fenced bool     // in a block of its own, not in a sentence
	Docker bool     // as what a container runs
}

func (c Command) String() string {
	return fmt.Sprintf("%s:%d: %s", c.Page, c.Line, strings.Join(c.Words, " "))
}

// Commands are the calls of program in the Markdown files below the folders (or files) of root. Folders called testdata or with a dot in front are
// left out.
func Commands(root, program string, below ...string) (all []Command, err error) {
	for _, start := range below {
		err := filepath.WalkDir(filepath.Join(root, start), func(file string, d fs.DirEntry, err error) error {
			switch {
			case err != nil:
				return err
			case d.IsDir() && (d.Name() == "testdata" || d.Name() == "node_modules" || strings.HasPrefix(d.Name(), ".") && d.Name() != "." && d.Name() != ".."):
				return filepath.SkipDir
			case d.IsDir() || !strings.HasSuffix(file, ".md"):
				return nil
			}
			text, err := os.ReadFile(file)
			if err != nil {
				return err
			}
			page, err := filepath.Rel(root, file)
			all = append(all, read(filepath.ToSlash(page), string(text), program)...)
			return err
		})
		if err != nil {
			return nil, err
		}
	}
	return all, nil
}

var (
	fence  = regexp.MustCompile("^\\s*(?:>\\s*)?```+\\s*([a-zA-Z]*)")
	inline = regexp.MustCompile("`([^`]+)`")
	shells = []string{"", "sh", "bash", "shell", "console", "text", "ini"}
)

// read finds the calls in one page: in blocks of a shell line by line, in sentences between backquotes.
func read(page, text, program string) (all []Command) {
	add := func(line int, written string, fenced bool) {
		for _, c := range calls(written, program) {
			c.Page, c.Line, c.Fenced = page, line, fenced
			all = append(all, c)
		}
	}
	prose, from := "", 0
	flush := func() {
		for _, at := range inline.FindAllStringSubmatchIndex(prose, -1) {
			add(from+strings.Count(prose[:at[0]], "\n"), strings.ReplaceAll(strings.ReplaceAll(prose[at[2]:at[3]], "\n", " "), `\|`, "|"), false)
		}
		prose = ""
	}
	open, shell, held := false, false, ""
	for i, line := range strings.Split(text, "\n") {
		if m := fence.FindStringSubmatch(line); m != nil {
			flush()
			open, shell, held = !open, slices.Contains(shells, m[1]), ""
			continue
		}
		switch trimmed := strings.TrimSpace(line); {
		case open && shell:
			if rest, more := strings.CutSuffix(held+trimmed, `\`); more {
				held = rest
				continue
			}
			add(i+1, held+trimmed, true)
			held = ""
		case open:
		case trimmed == "":
			flush()
		default:
			if prose == "" {
				from = i + 1
			}
			prose += line + "\n"
		}
	}
	flush()
	return all
}

// Examples are the calls in a help text: lines of their own, indented.
func Examples(help, program string) (all []Command) {
	for line := range strings.Lines(help) {
		if strings.HasPrefix(line, "  ") {
			all = append(all, calls(strings.TrimSpace(line), program)...)
		}
	}
	return all
}

var assignment = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*=`)

// calls finds each time that a line of a shell calls the program: by itself, over SSH, or as what a container runs.
func calls(line, program string) (all []Command) {
	for _, words := range segments(strings.TrimPrefix(strings.TrimPrefix(line, "$ "), "ExecStart=")) {
		for len(words) > 1 {
			switch {
			case words[0] == "sudo", words[0] == "exec", words[0] == "time", words[0] == "env", assignment.MatchString(words[0]):
				words = words[1:]
				continue
			case words[0] == "ssh" && !strings.HasPrefix(words[1], "-"):
				words = words[2:]
				continue
			}
			break
		}
		if len(words) == 0 {
			continue
		}
		if words[0] == "docker" { // the last word that names it: a service may be called like the program in it
			for i := len(words) - 2; i > 0; i-- {
				if path.Base(words[i]) == program {
					all = append(all, Command{Words: words[i+1:], Docker: true})
					break
				}
			}
		}
		if path.Base(words[0]) == program && len(words) > 1 {
			all = append(all, Command{Words: words[1:]})
		}
	}
	return all
}

// segments splits a line as a shell would, at what stands between two commands. Redirections and comments are left out.
func segments(line string) (all [][]string) {
	var words []string
	var word strings.Builder
	begun, skip := false, false
	end := func() {
		if begun && !skip {
			words = append(words, word.String())
		}
		if begun {
			skip = false
		}
		word.Reset()
		begun = false
	}
	cut := func() {
		end()
		if len(words) > 0 {
			all = append(all, words)
		}
		words = nil
	}
	for i := 0; i < len(line); i++ {
		switch c := line[i]; {
		case c == '\'' || c == '"':
			begun = true
			for i++; i < len(line) && line[i] != c; i++ {
				word.WriteByte(line[i])
			}
		case c == '\\' && i+1 < len(line):
			i++
			begun = true
			word.WriteByte(line[i])
		case c == ' ' || c == '\t':
			end()
		case c == '#' && !begun:
			cut()
			return all
		case c == '|' && begun && i+1 < len(line) && line[i+1] != ' ' && line[i+1] != '|': // fast|slow: a choice, not a pipe
			word.WriteByte(c)
		case strings.IndexByte(";|&()", c) >= 0:
			cut()
		case c == '<' || c == '>':
			end()
			skip = true
		default:
			begun = true
			word.WriteByte(c)
		}
	}
	cut()
	return all
}
