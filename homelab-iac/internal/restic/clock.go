package restic

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"time"
)

// Skew is how far the clock of this machine is ahead of the storage's, to the second. S3 refuses requests at fifteen minutes, and the
// times of snapshots are what forget and everybody else goes by. ok is false where the repository is behind no clock of its own.
func (r Repo) Skew(ctx context.Context) (ahead time.Duration, ok bool, err error) {
	address, ok := strings.CutPrefix(r.URL, "s3:http")
	if !ok {
		return 0, false, nil
	}
	address = "http" + address
	scheme, rest, _ := strings.Cut(address, "://")
	host, _, _ := strings.Cut(rest, "/")
	if at := strings.LastIndexByte(host, '@'); at >= 0 {
		host = host[at+1:]
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodHead, scheme+"://"+host+"/", nil)
	if err != nil {
		return 0, false, fmt.Errorf("ask the storage for the time: its URL is not a URL: correct repositories.*.url")
	}
	client := http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	begin := time.Now()
	resp, err := client.Do(req)
	if err != nil {
		return 0, false, fmt.Errorf("ask the storage for the time: %s does not answer", host)
	}
	resp.Body.Close()
	told, err := http.ParseTime(resp.Header.Get("Date"))
	if err != nil {
		return 0, false, nil //nolint:nilerr // it tells no time, and need not
	}
	here := begin.Add(time.Since(begin) / 2)
	return here.Sub(told).Truncate(time.Second), true, nil
}
