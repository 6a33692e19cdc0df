package main

import (
	"context"
	"os"
	"strings"
	"time"

	"home.arpa/lab/homelab-iac/internal/catalog"
	"home.arpa/lab/homelab-iac/internal/incident"
	"home.arpa/lab/internal/discord"
)

// tellBook is note for a job, which has no configuration of a machine: what was told is kept in a file that the pipeline's cache carries from
// one run to the next, and the webhook is in DISCORD_WEBHOOK. Without a webhook nobody is told.
func (c *call) tellBook(ctx context.Context, file, about, trouble string) error {
	webhook := os.Getenv("DISCORD_WEBHOOK")
	if webhook == "" {
		return nil
	}
	if file == "" {
		file = ".homelab/incidents.json"
	}
	book, err := incident.Open(ctx, file)
	if err != nil {
		return err
	}
	defer book.Close()
	book.Note(about, withRunbook(trouble, os.Getenv("RUNBOOKS"), about), time.Now())
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Minute)
	defer cancel()
	return book.Tell(ctx, discord.New(webhook).Deliver)
}

// withRunbook ends a trouble with the link to the page that says what to do about it; "" stays "". base is where docs/runbooks can be read.
func withRunbook(trouble, base, incident string) string {
	if trouble == "" {
		return ""
	}
	if base == "" {
		base = "docs/runbooks/"
	}
	return strings.TrimRight(trouble, ".") + ". Runbook: " + strings.TrimRight(base, "/") + "/" + catalog.Runbook(incident)
}
