package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"text/tabwriter"
	"time"

	"home.arpa/lab/llm-runner/internal/extract"
	"home.arpa/lab/llm-runner/internal/library"
	"home.arpa/lab/llm-runner/internal/llm"
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

// add hands one file to the library.
func (s shelf) add(ctx context.Context, collection, file string, as library.Upload) (library.Stored, error) {
	info, err := os.Stat(file)
	switch {
	case err != nil:
		return library.Stored{}, fmt.Errorf("add document: %w", err)
	case !info.Mode().IsRegular():
		return library.Stored{}, fmt.Errorf("add document %s: it is no regular file; name the files one by one", file)
	case info.Size() > extract.MaxFile:
		return library.Stored{}, fmt.Errorf("add document %s: it is larger than %d MB", file, extract.MaxFile>>20)
	}
	data, err := os.ReadFile(file)
	if err != nil {
		return library.Stored{}, fmt.Errorf("add document: %w", err)
	}
	as.Name, as.Data, as.Time = filepath.Base(file), data, time.Time{}
	if s.own != nil {
		return s.own.Add(ctx, collection, as)
	}
	var answer struct{ Documents []library.Stored }
	q := url.Values{"name": {as.Name}, "collection": {collection}, "title": {as.Title}, "url": {as.URL}}
	if err := s.bell.send(ctx, http.MethodPost, "/api/library/documents?"+q.Encode(), data, &answer); err != nil {
		return library.Stored{}, err
	}
	if len(answer.Documents) != 1 {
		return library.Stored{}, fmt.Errorf("add document %s: the server answered with %d documents", file, len(answer.Documents))
	}
	return answer.Documents[0], nil
}

// documents lists what was put, after removing one.
func (s shelf) documents(ctx context.Context, verb, collection, name string) ([]library.Stored, error) {
	if s.own != nil {
		if verb == "remove" {
			if err := s.own.Forget(ctx, collection, name); err != nil {
				return nil, err
			}
		}
		return s.own.Documents(ctx, "")
	}
	var answer struct{ Documents []library.Stored }
	method, path := http.MethodGet, "/api/library/documents"
	if verb == "remove" {
		if err := s.bell.send(ctx, http.MethodDelete, path+"?"+url.Values{"collection": {collection}, "path": {name}}.Encode(), nil, &answer); err != nil {
			return nil, err
		}
	}
	err := s.bell.send(ctx, method, path, nil, &answer)
	return answer.Documents, err
}

// send is ask with a method of choice; reading a document may take the server as long as extract.Patience.
func (d doorbell) send(ctx context.Context, method, path string, body []byte, into any) error {
	return d.sendWithin(ctx, extract.Patience+30*time.Second, method, path, body, into)
}

func (d doorbell) sendWithin(ctx context.Context, patience time.Duration, method, path string, body []byte, into any) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, d.URL+path, bytes.NewReader(body))
	if err != nil {
		return fmt.Errorf("ask the server: %w", err)
	}
	if d.Token != "" {
		req.Header.Set("Authorization", "Bearer "+d.Token)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return fmt.Errorf("ask the server: %w", err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(io.LimitReader(resp.Body, 16<<20))
	if err != nil {
		return fmt.Errorf("read the server's answer to %s: %w", path, err)
	}
	if resp.StatusCode >= 300 {
		var told struct{ Error struct{ Message string } }
		if json.Unmarshal(text, &told) != nil || told.Error.Message == "" {
			told.Error.Message = "the server answered " + resp.Status
		}
		if resp.StatusCode == http.StatusServiceUnavailable {
			return &llm.BusyError{Provider: "llm-runner", Kind: llm.Unavailable, Reason: told.Error.Message}
		}
		return errors.New(told.Error.Message)
	}
	if err := json.Unmarshal(text, into); err != nil {
		return fmt.Errorf("read the server's answer to %s: %w", path, err)
	}
	return nil
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
