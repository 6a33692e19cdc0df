package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/url"
	"strings"
	"text/tabwriter"

	"home.arpa/lab/llm-runner/internal/jobs"
)

func because(job jobs.Job) string {
	s := ""
	if job.Reason != "" {
		s = ": " + job.Reason
	}
	if at := job.GoesOn(); !at.IsZero() {
		s += "; it goes on at " + at.Local().Format("2006-01-02 15:04:05")
	}
	return s
}

// line prints one job in one line.
func (j *jobCall) line(raw json.RawMessage) error {
	if j.asJSON {
		return j.printJSON(raw)
	}
	var job jobs.Job
	if err := json.Unmarshal(raw, &job); err != nil {
		return err
	}
	fmt.Fprintf(j.stdout, "%d\t%s%s\n", job.ID, job.State, because(job))
	return nil
}

func (j *jobCall) list(ctx context.Context) error {
	var raw json.RawMessage
	if err := j.ask(ctx, "/api/jobs?"+url.Values{"state": {j.state}}.Encode(), nil, &raw); err != nil {
		return err
	}
	if j.asJSON {
		return j.printJSON(raw)
	}
	var all struct{ Jobs []jobs.Job }
	if err := json.Unmarshal(raw, &all); err != nil {
		return err
	}
	w := tabwriter.NewWriter(j.stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "ID\tSTATE\tTYPE\tSINCE\tETA\tTITLE\tREASON")
	for _, x := range all.Jobs {
		eta := "-"
		if x.ETA != nil {
			eta = x.ETA.Local().Format("2006-01-02 15:04:05")
		}
		fmt.Fprintf(w, "%d\t%s\t%s\t%s\t%s\t%s\t%s\n", x.ID, x.State, x.Type, x.Since.Local().Format("2006-01-02 15:04:05"), eta, x.Title, x.Reason)
	}
	return w.Flush()
}

func (j *jobCall) show(raw json.RawMessage) error {
	if j.asJSON {
		return j.printJSON(raw)
	}
	var job shownJob
	if err := json.Unmarshal(raw, &job); err != nil {
		return err
	}
	fmt.Fprintf(j.stdout, "job %d: %s (%s, priority %d)\n%s%s\n", job.ID, job.Title, job.Type, job.Priority, job.State, because(job.Job))
	if job.Position > 0 {
		fmt.Fprintf(j.stdout, "place in the line: %d\n", job.Position)
	}
	if job.ETA != nil {
		fmt.Fprintf(j.stdout, "done at about: %s\n", job.ETA.Local().Format("2006-01-02 15:04:05"))
	}
	if job.File != "" {
		fmt.Fprintf(j.stdout, "file: %s\n", job.File)
	}
	if job.Note != "" {
		fmt.Fprintf(j.stdout, "answer: %s\n", job.Note)
	}
	fmt.Fprintln(j.stdout)
	w := tabwriter.NewWriter(j.stdout, 0, 0, 2, ' ', 0)
	for _, e := range job.Timeline {
		fmt.Fprintf(w, "%s\t%s\t%s\n", e.At.Local().Format("2006-01-02 15:04:05"), e.To, e.Note)
	}
	if err := w.Flush(); err != nil {
		return err
	}
	if job.Answer != "" {
		fmt.Fprintf(j.stdout, "\n%s\n", strings.TrimRight(job.Answer, "\n"))
	}
	return nil
}
