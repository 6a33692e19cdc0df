// Package s3 asks an S3 server for what restic cannot: the older versions of objects. A few requests, signed by hand, so that no
// library of a hundred packages stands between a person and the storage when it counts.
package s3

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/md5" //nolint:gosec // S3's own check of what arrived, beside the signature
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"path"
	"regexp"
	"slices"
	"strings"
	"time"
)

// A Folder is where a restic repository lies: a bucket of a server, and a prefix in it.
type Folder struct {
	Endpoint string // https://HOST
	Bucket   string
	Prefix   string // "restic/", or empty
	Region   string
	ID       string
	Secret   string
	Session  string
	Client   *http.Client // nil: one that gives up after ten minutes
}

var regionForm = regexp.MustCompile(`^s3[.-]([a-z0-9-]+)\.amazonaws\.com$`)

// Open reads a repository's address, "s3:https://HOST/BUCKET/restic", and the key in an environment as restic reads it.
func Open(repository string, env []string) (Folder, error) {
	rest, ok := strings.CutPrefix(repository, "s3:")
	if !ok {
		return Folder{}, fmt.Errorf("open %s: only S3 keeps older versions: its address begins with s3:", repository)
	}
	if !strings.Contains(rest, "://") {
		rest = "https://" + strings.TrimPrefix(rest, "//")
	}
	u, err := url.Parse(rest)
	if err != nil || u.Host == "" {
		return Folder{}, fmt.Errorf("open %s: write s3:https://HOST/BUCKET/restic", repository)
	}
	f := Folder{Endpoint: u.Scheme + "://" + u.Host, Region: "us-east-1"}
	f.Bucket, f.Prefix, _ = strings.Cut(strings.Trim(path.Clean(u.Path), "/"), "/")
	if f.Prefix != "" {
		f.Prefix += "/"
	}
	if f.Bucket == "" || f.Bucket == "." {
		return Folder{}, fmt.Errorf("open %s: it names no bucket", repository)
	}
	if m := regionForm.FindStringSubmatch(u.Host); m != nil {
		f.Region = m[1]
	}
	for _, kv := range env {
		name, value, _ := strings.Cut(kv, "=")
		switch name {
		case "AWS_ACCESS_KEY_ID":
			f.ID = value
		case "AWS_SECRET_ACCESS_KEY":
			f.Secret = value
		case "AWS_SESSION_TOKEN":
			f.Session = value
		case "AWS_DEFAULT_REGION", "AWS_REGION":
			f.Region = value
		}
	}
	if f.ID == "" || f.Secret == "" {
		return Folder{}, fmt.Errorf("open %s: the key has no AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY", repository)
	}
	return f, nil
}

// A Version of an object, or a mark that it was deleted.
type Version struct {
	Key     string // without the folder's prefix
	ID      string
	Latest  bool
	Deleted bool // it is a mark
	Time    time.Time
	ETag    string
	Size    int64 // bytes
}

type listing struct {
	Truncated  bool   `xml:"IsTruncated"`
	NextKey    string `xml:"NextKeyMarker"`
	NextID     string `xml:"NextVersionIdMarker"`
	Encoding   string `xml:"EncodingType"`
	Versions   []row  `xml:"Version"`
	DeleteMark []row  `xml:"DeleteMarker"`
}

type row struct {
	Key    string    `xml:"Key"`
	ID     string    `xml:"VersionId"`
	Latest bool      `xml:"IsLatest"`
	Time   time.Time `xml:"LastModified"`
	ETag   string    `xml:"ETag"`
	Size   int64     `xml:"Size"`
}

// pages bounds how often Versions asks: a thousand versions a page.
const pages = 100_000

// Versions lists every version of every object of the folder: by key, the newest first.
func (f Folder) Versions(ctx context.Context) ([]Version, error) {
	var out []Version
	keyMarker, idMarker := "", ""
	for range pages {
		q := url.Values{"versions": {""}, "prefix": {f.Prefix}, "encoding-type": {"url"}}
		if keyMarker != "" {
			q.Set("key-marker", keyMarker)
			if idMarker != "" {
				q.Set("version-id-marker", idMarker)
			}
		}
		text, err := f.do(ctx, http.MethodGet, "", q, nil)
		if err != nil {
			return nil, fmt.Errorf("list versions of %s/%s: %w", f.Bucket, f.Prefix, err)
		}
		var page listing
		if err := xml.Unmarshal(text, &page); err != nil {
			return nil, fmt.Errorf("list versions of %s/%s: read the answer: %w", f.Bucket, f.Prefix, err)
		}
		found, err := f.read(page)
		if err != nil {
			return nil, err
		}
		out = append(out, found...)
		if !page.Truncated {
			slices.SortStableFunc(out, newestFirst)
			return out, nil
		}
		nextKey := page.NextKey
		if page.Encoding == "url" {
			if nextKey, err = url.QueryUnescape(nextKey); err != nil {
				return nil, fmt.Errorf("list versions of %s/%s: %w", f.Bucket, f.Prefix, err)
			}
		}
		if nextKey == keyMarker && page.NextID == idMarker || nextKey == "" {
			return nil, fmt.Errorf("list versions of %s/%s: the server says that there is more, and gives the same page again", f.Bucket, f.Prefix)
		}
		keyMarker, idMarker = nextKey, page.NextID
	}
	return nil, fmt.Errorf("list versions of %s/%s: there are more than %d pages", f.Bucket, f.Prefix, pages)
}

func newestFirst(a, b Version) int {
	if c := strings.Compare(a.Key, b.Key); c != 0 {
		return c
	}
	if a.Latest != b.Latest {
		if a.Latest {
			return -1
		}
		return 1
	}
	return b.Time.Compare(a.Time)
}

func (f Folder) read(page listing) (out []Version, err error) {
	for i, rows := range [][]row{page.Versions, page.DeleteMark} {
		for _, r := range rows {
			key := r.Key
			if page.Encoding == "url" {
				if key, err = url.QueryUnescape(key); err != nil {
					return nil, fmt.Errorf("read the name %q: %w", r.Key, err)
				}
			}
			if made, ok := made(r.ID); ok {
				r.Time = made
			}
			out = append(out, Version{Key: strings.TrimPrefix(key, f.Prefix), ID: r.ID, Latest: r.Latest, Deleted: i == 1, Time: r.Time, ETag: strings.Trim(r.ETag, `"`), Size: r.Size})
		}
	}
	return out, nil
}

// made reads the moment out of a version's ID that is a ULID: 48 bits of milliseconds since 1970 in Crockford's base 32, then chance
// (github.com/ulid/spec). versitygw 1.8.0 makes such IDs, and gives as LastModified of an older version the moment when it was superseded,
// not when it was written as Amazon does. Amazon's own IDs have 32 characters.
func made(id string) (time.Time, bool) {
	if len(id) != 26 || id[0] > '7' {
		return time.Time{}, false
	}
	ms := int64(0)
	for i := range 26 {
		at := strings.IndexByte("0123456789ABCDEFGHJKMNPQRSTVWXYZ", id[i])
		if at < 0 {
			return time.Time{}, false
		}
		if i < 10 {
			ms = ms<<5 | int64(at)
		}
	}
	return time.UnixMilli(ms).UTC(), true
}

// Get reads one version of an object.
func (f Folder) Get(ctx context.Context, v Version) ([]byte, error) {
	q := url.Values{}
	if v.ID != "" {
		q.Set("versionId", v.ID)
	}
	text, err := f.do(ctx, http.MethodGet, v.Key, q, nil)
	if err != nil {
		return nil, fmt.Errorf("read version %s of %s: %w", v.ID, v.Key, err)
	}
	return text, nil
}

// Put writes an object; what was there stays as an older version.
func (f Folder) Put(ctx context.Context, key string, text []byte) error {
	if _, err := f.do(ctx, http.MethodPut, key, nil, text); err != nil {
		return fmt.Errorf("write %s: %w", key, err)
	}
	return nil
}

// Tries of one request, with growing pauses: a storage that is busy says so and is well a moment later.
const tries = 4

// longest bounds an answer: restic's packs have 16 or 64 MiB, its indexes less.
const longest = 1 << 30

func (f Folder) do(ctx context.Context, method, key string, q url.Values, body []byte) (text []byte, err error) {
	for try := range tries {
		if try > 0 {
			select {
			case <-ctx.Done():
				return nil, context.Cause(ctx)
			case <-time.After(time.Duration(try*try) * 500 * time.Millisecond):
			}
		}
		var again bool
		if text, again, err = f.once(ctx, method, key, q, body); err == nil || !again {
			return text, err
		}
	}
	return nil, err
}

func (f Folder) once(ctx context.Context, method, key string, q url.Values, body []byte) (text []byte, again bool, err error) {
	at := "/" + f.Bucket
	if key != "" {
		at += "/" + f.Prefix + key
	}
	u, err := url.Parse(f.Endpoint)
	if err != nil {
		return nil, false, err
	}
	u.Path, u.RawPath, u.RawQuery = at, escape(at, true), canonicalQuery(q)
	req, err := http.NewRequestWithContext(ctx, method, u.String(), bytes.NewReader(body))
	if err != nil {
		return nil, false, err
	}
	if body != nil {
		sum := md5.Sum(body) //nolint:gosec // object lock wants it
		req.Header.Set("Content-MD5", base64.StdEncoding.EncodeToString(sum[:]))
	}
	f.sign(req, at, body, time.Now())
	client := f.Client
	if client == nil {
		client = &http.Client{Timeout: 10 * time.Minute}
	}
	resp, err := client.Do(req)
	if err != nil {
		return nil, ctx.Err() == nil, err
	}
	defer resp.Body.Close()
	text, err = io.ReadAll(io.LimitReader(resp.Body, longest))
	if resp.StatusCode > 299 {
		var said struct{ Code, Message string }
		_ = xml.Unmarshal(text, &said) // some have no body
		return nil, resp.StatusCode >= 500, fmt.Errorf("%s: %s %s", resp.Status, said.Code, said.Message)
	}
	if err == nil && resp.ContentLength >= 0 && int64(len(text)) != resp.ContentLength {
		err = io.ErrUnexpectedEOF
	}
	return text, errors.Is(err, io.ErrUnexpectedEOF), err
}

// escape writes bytes as the signature wants them: all but letters, digits, - . _ ~, and / in paths.
func escape(s string, isPath bool) string {
	var b strings.Builder
	for _, c := range []byte(s) {
		if c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.IndexByte("-._~", c) >= 0 || isPath && c == '/' {
			b.WriteByte(c)
		} else {
			fmt.Fprintf(&b, "%%%02X", c)
		}
	}
	return b.String()
}

func canonicalQuery(q url.Values) string {
	var parts []string
	for name, values := range q {
		for _, v := range values {
			parts = append(parts, escape(name, false)+"="+escape(v, false))
		}
	}
	slices.Sort(parts)
	return strings.Join(parts, "&")
}

// sign adds AWS Signature Version 4, with the body's hash in it.
func (f Folder) sign(r *http.Request, at string, body []byte, now time.Time) {
	sum := sha256.Sum256(body)
	payload, stamp := hex.EncodeToString(sum[:]), now.UTC().Format("20060102T150405Z")
	r.Header.Set("X-Amz-Date", stamp)
	r.Header.Set("X-Amz-Content-Sha256", payload)
	names := []string{"host", "x-amz-content-sha256", "x-amz-date"}
	values := map[string]string{"host": r.URL.Host, "x-amz-content-sha256": payload, "x-amz-date": stamp}
	if f.Session != "" {
		r.Header.Set("X-Amz-Security-Token", f.Session)
		names, values["x-amz-security-token"] = append(names, "x-amz-security-token"), f.Session
	}
	var headers strings.Builder
	for _, n := range names {
		headers.WriteString(n + ":" + values[n] + "\n")
	}
	signed := strings.Join(names, ";")
	canonical := strings.Join([]string{r.Method, escape(at, true), r.URL.RawQuery, headers.String(), signed, payload}, "\n")
	hash := sha256.Sum256([]byte(canonical))
	scope := stamp[:8] + "/" + f.Region + "/s3/aws4_request"
	key := []byte("AWS4" + f.Secret)
	for _, part := range append(strings.Split(scope, "/"), "AWS4-HMAC-SHA256\n"+stamp+"\n"+scope+"\n"+hex.EncodeToString(hash[:])) {
		mac := hmac.New(sha256.New, key)
		mac.Write([]byte(part))
		key = mac.Sum(nil)
	}
	r.Header.Set("Authorization", fmt.Sprintf("AWS4-HMAC-SHA256 Credential=%s/%s, SignedHeaders=%s, Signature=%x", f.ID, scope, signed, key))
}
