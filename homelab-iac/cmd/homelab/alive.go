package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"time"
)

var aliveCommands = []command{{
	name: "kuma alive", args: "[flags]", summary: "ask from outside whether Uptime Kuma is there, and tell Discord by itself",
	help: `Who watches Uptime Kuma: a scheduled pipeline that asks for its page and posts to Discord without it. Discord hears once when it does not answer and
once when it is back; --book keeps what was told from one run to the next. The address is KUMA_URL, the webhook DISCORD_WEBHOOK.

Example:
  homelab kuma alive --url https://kuma.tailnet.example --book .homelab/incidents.json

Exit codes: 0 it answers, 1 it does not, 2 the command line is wrong.`,
	setup: func(fs *flag.FlagSet, c *call) func(context.Context) error {
		address := fs.String("url", os.Getenv("KUMA_URL"), "`URL` of Uptime Kuma (default: KUMA_URL)")
		book := fs.String("book", "", "`FILE` that keeps what Discord was told")
		pause := fs.Duration("pause", 20*time.Second, "between three tries")
		return func(ctx context.Context) error {
			if !strings.HasPrefix(*address, "http://") && !strings.HasPrefix(*address, "https://") {
				return usageError{fmt.Sprintf("%q is no address: set KUMA_URL or say --url", *address)}
			}
			return c.kumaAlive(ctx, *address, *book, *pause)
		}
	},
}}

func (c *call) kumaAlive(ctx context.Context, address, book string, pause time.Duration) error {
	var err error
	for try := range 3 {
		if try > 0 {
			select {
			case <-time.After(pause):
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		if err = askKuma(ctx, address); err == nil {
			break
		}
	}
	trouble := ""
	if err != nil {
		trouble = "it does not answer a question from outside, so nobody hears of anything: " + err.Error()
	}
	if told := c.tellBook(ctx, book, "Uptime Kuma, asked from outside", trouble); told != nil {
		c.say(told.Error())
	}
	if err != nil {
		return err
	}
	fmt.Fprintln(c.stdout, "Uptime Kuma answers.")
	return nil
}

// askKuma asks for what only Kuma answers: which page is to be shown first (server/routers/api-router.js of Uptime Kuma 2).
func askKuma(ctx context.Context, address string) error {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, strings.TrimRight(address, "/")+"/api/entry-page", nil)
	if err != nil {
		return err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(io.LimitReader(resp.Body, 1<<16))
	if err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK || !strings.Contains(string(text), `"type"`) {
		return errors.New("what answers is not Uptime Kuma: " + resp.Status)
	}
	return nil
}
