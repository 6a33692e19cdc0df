package s3

import (
	"context"
	"encoding/xml"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestAddressesOfRepositoriesAreRead(t *testing.T) {
	env := []string{"AWS_ACCESS_KEY_ID=id", "AWS_SECRET_ACCESS_KEY=secret"}
	for address, want := range map[string]string{
		"s3:https://s3.eu-central-1.amazonaws.com/bucket/restic": "https://s3.eu-central-1.amazonaws.com bucket restic/ eu-central-1",
		"s3:http://10.0.0.1:9000/bucket":                         "http://10.0.0.1:9000 bucket  us-east-1",
		"s3:s3.amazonaws.com/bucket/a/b/":                        "https://s3.amazonaws.com bucket a/b/ us-east-1",
	} {
		f, err := Open(address, env)
		if got := fmt.Sprintf("%s %s %s %s", f.Endpoint, f.Bucket, f.Prefix, f.Region); err != nil || got != want {
			t.Errorf("%s: %s %v", address, got, err)
		}
	}
	if f, err := Open("s3:https://h/b", append(env, "AWS_DEFAULT_REGION=fr-par", "AWS_SESSION_TOKEN=x")); err != nil || f.Region != "fr-par" || f.Session != "x" {
		t.Error(f, err)
	}
	for _, bad := range []string{"/srv/repo", "rest:https://h/b", "s3:https://h", "s3:https://h/", "s3:"} {
		if _, err := Open(bad, env); err == nil {
			t.Errorf("%s was opened", bad)
		}
	}
	if _, err := Open("s3:https://h/b", nil); err == nil || !strings.Contains(err.Error(), "AWS_ACCESS_KEY_ID") {
		t.Error(err)
	}
}

// TestTheSignatureIsTheOneOfAmazonsExample compares with "GET Bucket (List Objects)" of Amazon's examples of Signature Version 4, whose
// numbers are public.
func TestTheSignatureIsTheOneOfAmazonsExample(t *testing.T) {
	f := Folder{Endpoint: "https://examplebucket.s3.amazonaws.com", Region: "us-east-1", ID: "AKIAIOSFODNN7EXAMPLE", Secret: "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"}
	q := url.Values{"max-keys": {"2"}, "prefix": {"J"}}
	r := httptest.NewRequest(http.MethodGet, f.Endpoint+"/?"+canonicalQuery(q), nil)
	f.sign(r, "/", nil, time.Date(2013, 5, 24, 0, 0, 0, 0, time.UTC))
	if want := "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7"; !strings.HasSuffix(r.Header.Get("Authorization"), "Signature="+want) {
		t.Error(r.Header.Get("Authorization"))
	}
}

func TestOddNamesAreEscapedOnce(t *testing.T) {
	if got := escape("/a b/ü+%?=&~", true); got != "/a%20b/%C3%BC%2B%25%3F%3D%26~" {
		t.Error(got)
	}
}

func TestTheMomentIsReadOutOfAnID(t *testing.T) {
	if at, ok := made("01ARZ3NDEKTSV4RRFFQ69G5FAV"); !ok || at.UnixMilli() != 1469922850259 { // the example of the specification
		t.Error(at, ok)
	}
	for _, id := range []string{"", "null", "3HL4kqtJlcpXroDTDmJ+rmSpXd3dIbrHY", "01ARZ3NDEKTSV4RRFFQ69G5FAU", "81ARZ3NDEKTSV4RRFFQ69G5FAV"} {
		if at, ok := made(id); ok {
			t.Errorf("%q: %s", id, at)
		}
	}
}

func page(more bool, next string, rows ...string) string {
	return fmt.Sprintf("<ListVersionsResult><IsTruncated>%v</IsTruncated><NextKeyMarker>%s</NextKeyMarker><NextVersionIdMarker>9</NextVersionIdMarker><EncodingType>url</EncodingType>%s</ListVersionsResult>", more, next, strings.Join(rows, ""))
}

func version(kind, key, id string, latest bool, at string) string {
	return fmt.Sprintf("<%s><Key>%s</Key><VersionId>%s</VersionId><IsLatest>%v</IsLatest><LastModified>%s</LastModified><Size>3</Size></%s>", kind, key, id, latest, at, kind)
}

// server answers with one text after the other; "500" is a failure.
func server(t *testing.T, texts ...string) (Folder, *[]string) {
	t.Helper()
	asked := &[]string{}
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		*asked = append(*asked, r.URL.RawQuery)
		text := texts[0]
		if len(texts) > 1 {
			texts = texts[1:]
		}
		if text == "500" || text == "403" {
			w.WriteHeader(map[string]int{"500": 500, "403": 403}[text])
			text = "<Error><Code>Nope</Code><Message>not now</Message></Error>"
		}
		io.WriteString(w, text)
	}))
	t.Cleanup(s.Close)
	return Folder{Endpoint: s.URL, Bucket: "b", Prefix: "restic/", Region: "us-east-1", ID: "i", Secret: "very-secret"}, asked
}

func TestEveryPageOfVersionsIsReadAndTheNewestComesFirst(t *testing.T) {
	f, asked := server(t,
		page(true, "restic/data%2Fa%20b", version("Version", "restic/data/a%20b", "1", false, "2026-01-01T00:00:00Z"), version("Version", "restic/data/a%20b", "2", true, "2026-01-02T00:00:00Z")),
		"500",
		page(false, "", version("DeleteMarker", "restic/config", "4", true, "2026-01-02T00:00:00Z"), version("Version", "restic/config", "3", false, "2026-01-01T00:00:00Z")))
	list, err := f.Versions(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, v := range list {
		got = append(got, fmt.Sprint(v.Key, v.ID, v.Deleted))
	}
	if !slices.Equal(got, []string{"config4true", "config3false", "data/a b2false", "data/a b1false"}) {
		t.Error(got)
	}
	if last := (*asked)[2]; !strings.Contains(last, "key-marker=restic%2Fdata%2Fa%20b&") || !strings.Contains(last, "version-id-marker=9") {
		t.Errorf("asked %v", *asked)
	}
}

func TestARefusalIsToldAndNotTriedAgain(t *testing.T) {
	f, asked := server(t, "403")
	_, err := f.Versions(t.Context())
	if err == nil || !strings.Contains(err.Error(), "Nope not now") || strings.Contains(err.Error(), "very-secret") || len(*asked) != 1 {
		t.Error(err, len(*asked))
	}
}

func TestAServerThatNeverEndsIsLeft(t *testing.T) {
	f, _ := server(t, page(true, "x", version("Version", "restic/x", "1", true, "2026-01-01T00:00:00Z")))
	if _, err := f.Versions(t.Context()); err == nil || !strings.Contains(err.Error(), "same page again") {
		t.Error(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := f.Versions(ctx); err == nil {
		t.Error("it went on after its end")
	}
}

func FuzzVersionsOfStrangers(f *testing.F) {
	f.Add(page(true, "a", version("Version", "restic/%zz", "1", true, "never")))
	f.Add("<")
	f.Fuzz(func(t *testing.T, text string) {
		var p listing
		if xml.Unmarshal([]byte(text), &p) == nil {
			Folder{Prefix: "restic/"}.read(p) //nolint:errcheck // it must not fall over
		}
	})
}
