package main

import (
	"slices"
	"strings"
	"testing"

	"home.arpa/lab/internal/pages"
)

// emergency tells of a page that is read when something is broken: there a command that is named is typed as it stands.
func emergency(page string) bool {
	return slices.Contains([]string{"docs/break-glass.md", "docs/restore.md", "homelab-iac/README.md"}, page) || strings.HasPrefix(page, "docs/runbooks/")
}

// commandOf finds the command that words begin with, -1 where there is none, and what stands behind its name.
func commandOf(words []string) (i int, rest []string) {
	for n := min(2, len(words)); n > 0; n-- {
		if i := slices.IndexFunc(commands, func(cmd command) bool { return cmd.name == strings.Join(words[:n], " ") }); i >= 0 {
			return i, words[n:]
		}
	}
	return -1, words
}

// TestPagesNameCommandsThatThereAre: what a page says to type has a command, flags that it takes, and what it cannot do without. Elsewhere than on
// emergency pages a sentence may leave out what is clear.
func TestPagesNameCommandsThatThereAre(t *testing.T) {
	all, err := pages.Commands("../../..", "homelab", "README.md", "docs", "homelab-iac")
	if err != nil {
		t.Fatal(err)
	}
	if len(all) < 100 {
		t.Fatalf("only %d commands were found", len(all))
	}
	for _, c := range all {
		i, words := commandOf(c.Words)
		loose := !c.Fenced && !emergency(c.Page)
		switch {
		case i >= 0:
			if loose {
				words = append(slices.Clone(words), "...")
			}
			fs, _ := commands[i].flags(&call{})
			if err := pages.Fits(fs, commands[i].args, words); err != nil {
				t.Errorf("%v: %v", c, err)
			}
		case c.Words[0] == "help", c.Words[0] == "COMMAND", loose && len(c.Words) == 1 && len(below(c.Words[0])) > 0:
		default:
			t.Errorf("%v: there is no such command", c)
		}
	}
}
