package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"text/tabwriter"
	"time"

	"home.arpa/lab/llm-runner/internal/extract"
	"home.arpa/lab/llm-runner/internal/library"
	"home.arpa/lab/llm-runner/internal/toolbox/browse"
)

// What this program calls itself with, to read one document or page in a process of its own. They are not for people.
const (
	readDocumentCommand = "read-document"
	readPageCommand     = "read-page"
)

// documentReader reads documents in processes of their own, or here where this program does not know where it is.
func documentReader() extract.Reader {
	self, err := os.Executable()
	if err != nil {
		return extract.Read
	}
	return extract.Process(self, readDocumentCommand)
}

// readDocument is that process.
func readDocument(ctx context.Context, args []string, in io.Reader, out, faults io.Writer) int {
	if len(args) != 1 {
		return exitUsage
	}
	if err := extract.Serve(ctx, args[0], in, out); err != nil {
		io.WriteString(faults, err.Error()) //nolint:errcheck // nobody else is there to hear
		return exitFailed
	}
	return exitOK
}

// pageReader reads pages in processes of their own, or (nil) here where this program does not know where it is.
func pageReader() browse.Reader {
	self, err := os.Executable()
	if err != nil {
		return nil
	}
	pool := extract.NewPool(self, readPageCommand)
	return func(ctx context.Context, u *url.URL, contentType string, body []byte) (p browse.Page, err error) {
		head, err := json.Marshal(pageHead{u.String(), contentType})
		if err != nil {
			return p, err
		}
		return p, pool.Read(ctx, append(append(head, '\n'), body...), &p)
	}
}

// pageHead is what such a process is told before the page.
type pageHead struct{ URL, Type string }

// readPage is that process.
func readPage(ctx context.Context, in io.Reader, out, faults io.Writer) int {
	err := extract.Reply(in, out, func(data []byte) (any, error) {
		first, body, _ := bytes.Cut(data, []byte("\n"))
		var head pageHead
		if err := json.Unmarshal(first, &head); err != nil {
			return nil, err
		}
		u, err := url.Parse(head.URL)
		if err != nil {
			return nil, err
		}
		return browse.Read(ctx, u, head.Type, body)
	})
	if err != nil {
		io.WriteString(faults, err.Error()) //nolint:errcheck // nobody else is there to hear
		return exitFailed
	}
	return exitOK
}

// addDocuments hands files to the library, and says of each what became of it. Some may fail; the others are kept.
func (c *call) addDocuments(ctx context.Context, s shelf, collection string, files []string, as library.Upload, asJSON bool) error {
	if len(files) > 1 && (as.URL != "" || as.Title != "") {
		return usageError{"--url and --title are of one document: add them one by one"}
	}
	var all []library.Stored
	var faults []error
	for _, file := range files {
		stored, err := s.add(ctx, collection, file, as)
		if err != nil {
			faults = append(faults, err)
			continue
		}
		all = append(all, stored)
	}
	if err := c.printDocuments(all, asJSON); err != nil {
		return err
	}
	return errors.Join(faults...)
}

func (c *call) printDocuments(all []library.Stored, asJSON bool) error {
	if asJSON {
		return c.printJSON(map[string]any{"documents": notNil(all)})
	}
	w := tabwriter.NewWriter(c.stdout, 0, 0, 2, ' ', 0)
	for _, d := range all {
		says := fmt.Sprintf("%d bytes of text", d.Bytes)
		if d.Pages > 0 {
			says += fmt.Sprintf(" on %d pages", d.Pages)
		}
		if d.NeverSent {
			says += ", never sent to cloud providers"
		}
		for _, r := range d.Remarks {
			says += "; " + r
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", d.Collection, d.Path, d.Title, says)
	}
	return w.Flush()
}

// watchReading shows on a terminal how far the library is, once that takes longer than a second. The returned function ends it.
func (c *call) watchReading(l *library.Library) (stop func()) {
	f, ok := c.stderr.(*os.File)
	if st, err := f.Stat(); !ok || err != nil || st.Mode()&os.ModeCharDevice == 0 {
		return func() {}
	}
	done, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		tick := time.NewTicker(time.Second)
		defer tick.Stop()
		shown := false
		for {
			select {
			case <-tick.C:
				s := l.Status()
				fmt.Fprintf(f, "\r\033[K%d of %d notes, %d skipped %.60s", s.Notes, max(s.Found, s.Notes), len(s.Skipped), s.Reading)
				shown = true
			case <-done:
				if shown {
					fmt.Fprint(f, "\r\033[K")
				}
				return
			}
		}
	}()
	return func() { close(done); <-ended }
}
