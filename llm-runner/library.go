package main

import (
	"context"
	"flag"
	"fmt"
	"strings"
	"text/tabwriter"

	"home.arpa/lab/llm-runner/internal/library"
)

var libraryCommand = command{
	name: "library", args: "status|search|add|documents|remove|reindex|exclude|include [ARGUMENT] [flags]", summary: "search the notes, add documents, and see what is indexed",
	help: `Works on the running server's index; without a server on the data directory's, which is brought up to date first.

  status           how many notes are indexed, and which are skipped and why
  search QUERY     the passages that answer best; tag: path: type: collection: after: before: leave notes out
  add FILE...      take documents in (Markdown, text, HTML, PDF, DOCX, ODT, EPUB), which are then searched and cited like notes
  documents        what was taken in, and fetched pages and facts
  remove NAME      forget such a document
  reindex          index every note again; a server does it in the background
  exclude PATTERN  leave files out: a name, or a path from the top, with * and ?; without a pattern list them
  include PATTERN  take a pattern back

Examples:
  llm-runner library search 'heat pump filter path:house/'
  llm-runner library search '"exact words"' --limit 3 --json
  llm-runner library search 'why is the cellar wet' --why
  llm-runner library add ~/Downloads/boiler-manual.pdf
  llm-runner library add page.html --url https://example.org/page --title 'A page'
  llm-runner library exclude 'templates'

Exit codes: 0 done, 1 failed or some document cannot be read, 2 wrong usage.`,
	setup: func(fs *flag.FlagSet, c *call) func(context.Context) error {
		limit := fs.Int("limit", 10, "of search: at most `N` passages, up to 100")
		why := fs.Bool("why", false, "of search: say of each passage how it came to its place, and what was left out")
		asJSON := fs.Bool("json", false, "print JSON")
		collection := fs.String("collection", library.Uploads, "of add and remove: the `COLLECTION`")
		from := fs.String("url", "", "of add: the `URL` that the document came from")
		title := fs.String("title", "", "of add: the document's `TITLE`; default: its own")
		return func(ctx context.Context) error {
			if len(c.args) == 0 {
				return usageError{"say what to do: " + libraryVerbs}
			}
			verb, argument := c.args[0], strings.Join(c.args[1:], " ")
			switch {
			case (verb == "search" || verb == "include" || verb == "add" || verb == "remove") && argument == "":
				return usageError{verb + " what?"}
			case (verb == "add" || verb == "remove") && *collection == library.Memory:
				return usageError{"what is remembered has a command of its own: llm-runner memory " + map[string]string{"add": "add", "remove": "forget"}[verb]}
			case *limit < 1 || *limit > 100:
				return usageError{"--limit must be from 1 to 100"}
			}
			config, err := Load(c.Options)
			if err != nil {
				return err
			}
			shelf, done, err := c.openShelf(ctx, config)
			if err != nil {
				return err
			}
			defer done()
			switch verb {
			case "add":
				return c.addDocuments(ctx, shelf, *collection, c.args[1:], library.Upload{URL: *from, Title: *title}, *asJSON)
			case "remove", "documents":
				all, err := shelf.documents(ctx, verb, *collection, argument)
				if err != nil {
					return err
				}
				return c.printDocuments(all, *asJSON)
			}
			if verb == "search" {
				found, err := shelf.search(ctx, argument, *limit)
				if err != nil {
					return err
				}
				return c.printFound(found, *why, *asJSON)
			}
			if verb == "exclude" && argument == "" {
				verb = "status"
			}
			state, err := shelf.do(ctx, verb, argument)
			if err != nil {
				return err
			}
			return c.printLibrary(state, *asJSON)
		}
	},
}

const libraryVerbs = "status, search, add, documents, remove, reindex, exclude or include"

// libraryState is what the command shows of the index.
type libraryState struct {
	library.Status
	Excluded []string `json:"excluded"`
}

func (c *call) printFound(found library.Shown, why, asJSON bool) error {
	if asJSON {
		return c.printJSON(found)
	}
	if len(found.Found) == 0 {
		fmt.Fprintln(c.stdout, "Nothing is found. Try other words, or fewer.")
	}
	for _, f := range found.Found {
		if f.Collection != library.Notes {
			fmt.Fprintf(c.stdout, "%s: ", f.Collection)
		}
		fmt.Fprintf(c.stdout, "%s:%d", f.Path, f.Line)
		if f.Page > 0 {
			fmt.Fprintf(c.stdout, ", page %d", f.Page)
		}
		for _, h := range f.Heading {
			fmt.Fprintf(c.stdout, " › %s", h)
		}
		fmt.Fprintf(c.stdout, "\n    %s\n", strings.Join(strings.Fields(f.Snippet.Text), " "))
		if why {
			fmt.Fprintf(c.stdout, "    why: %s\n", f.Why.Sentence())
		}
	}
	if why {
		for _, line := range found.Sentences() {
			fmt.Fprintln(c.stdout, line)
		}
	}
	return nil
}

func (c *call) printLibrary(s libraryState, asJSON bool) error {
	if asJSON {
		s.Excluded, s.Skipped, s.Partly, s.NeverSend = notNil(s.Excluded), notNil(s.Skipped), notNil(s.Partly), notNil(s.NeverSend)
		return c.printJSON(s)
	}
	fmt.Fprintln(c.stdout, s.Sentence())
	fmt.Fprintln(c.stdout, s.Meaning.Sentence())
	if missing := s.Meaning.Missing(); missing != "" {
		fmt.Fprintln(c.stdout, missing)
	}
	if s.Error != "" {
		fmt.Fprintf(c.stdout, "the last look failed: %s\n", s.Error)
	}
	w := tabwriter.NewWriter(c.stdout, 0, 0, 2, ' ', 0)
	for _, x := range s.Skipped {
		fmt.Fprintf(w, "%s\t%s\n", x.Path, x.Reason)
	}
	for _, x := range s.Partly {
		fmt.Fprintf(w, "%s\tpartly read: %s\n", x.Path, x.Reason)
	}
	if err := w.Flush(); err != nil {
		return err
	}
	if len(s.Excluded) > 0 {
		fmt.Fprintf(c.stdout, "excluded: %s\n", strings.Join(s.Excluded, ", "))
	}
	for _, n := range s.NeverSend {
		if n.Documents == 0 {
			fmt.Fprintf(c.stdout, "never sent to cloud providers: %s, which matches nothing: is it spelled right?\n", n.Pattern)
			continue
		}
		fmt.Fprintf(c.stdout, "never sent to cloud providers: %s (%d)\n", n.Pattern, n.Documents)
	}
	return nil
}
