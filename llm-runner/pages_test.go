package main

import (
	"slices"
	"testing"

	"home.arpa/lab/internal/pages"
)

// TestPagesNameCommandsThatThereAre: what a page says to type has a command, flags that it takes, and what it cannot do without. A sentence
// may leave out what is clear.
func TestPagesNameCommandsThatThereAre(t *testing.T) {
	all, err := pages.Commands("..", "llm-runner", "README.md", "docs", "homelab-iac", "llm-runner")
	if err != nil {
		t.Fatal(err)
	}
	if len(all) < 100 {
		t.Fatalf("only %d commands were found", len(all))
	}
	for _, c := range all {
		i := slices.IndexFunc(commands, func(cmd command) bool { return cmd.name == c.Words[0] })
		switch words := c.Words[1:]; {
		case slices.Contains([]string{"help", "COMMAND", "..."}, c.Words[0]):
		case i < 0:
			t.Errorf("%v: there is no such command", c)
		case c.Docker && !slices.Contains(words, "--data"):
			t.Errorf("%v: without --data a program in a container takes another folder than the server's", c)
		default:
			if !c.Fenced {
				words = append(slices.Clone(words), "...")
			}
			fs, _ := commands[i].flags(&call{})
			if err := pages.Fits(fs, commands[i].args, words); err != nil {
				t.Errorf("%v: %v", c, err)
			}
		}
	}
}
