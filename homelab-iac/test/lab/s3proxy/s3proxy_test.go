package s3proxy

import (
	"net/http"
	"net/url"
	"strings"
	"testing"
)

func TestRequestsAreCalledByIAMsNames(t *testing.T) {
	for _, c := range []struct {
		method, target string
		header         string
		want           Action
	}{
		{"GET", "/", "", ListBuckets},
		{"GET", "/fast/?location=", "", Location},
		{"GET", "/fast?list-type=2&prefix=a%2F&delimiter=%2F", "", ListBucket},
		{"HEAD", "/fast", "", ListBucket},
		{"GET", "/fast?versions", "", ListVersions},
		{"PUT", "/fast", "", CreateBucket},
		{"DELETE", "/fast", "", "DELETE ?"},
		{"PUT", "/fast?versioning", "", "PUT ?versioning"},
		{"PUT", "/fast?policy", "", "PUT ?policy"},
		{"POST", "/fast?delete", "", DeleteMany},
		{"GET", "/fast/r/config", "", GetObject},
		{"HEAD", "/fast/r/config", "", GetObject},
		{"GET", "/fast/r/config?versionId=1", "", GetVersion},
		{"PUT", "/fast/r/data/ab/abc", "", PutObject},
		{"PUT", "/fast/r/data/ab/abc?partNumber=1&uploadId=x", "", PutObject},
		{"POST", "/fast/r/data/ab/abc?uploads", "", PutObject},
		{"DELETE", "/fast/r/locks/1", "", Delete},
		{"DELETE", "/fast/r/locks/1?X-Amz-Signature=x", "", Delete},
		{"DELETE", "/fast/r/locks/1?versionId=1", "", DeleteOld},
		{"DELETE", "/fast/r/locks/1", "X-Amz-Bypass-Governance-Retention", Bypass},
		{"PUT", "/fast/r/config?retention", "", "PUT ?retention"},
		{"DELETE", "/fast/r/config?tagging&versionId=1", "", "DELETE ?tagging&versionId"},
		{"PATCH", "/create-user", "", "PATCH ?"},
	} {
		u, err := url.Parse(c.target)
		if err != nil {
			t.Fatal(err)
		}
		h := http.Header{}
		if c.header != "" {
			h.Set(c.header, "true")
		}
		if got := action(c.method, u, h); got != c.want {
			t.Errorf("%s %s is %q, want %q", c.method, c.target, got, c.want)
		}
	}
}

func TestKeysMayDoWhatTheirPolicySays(t *testing.T) {
	type ask struct {
		a      Action
		object string
	}
	roles := map[string][]Grant{"backup": Backup, "maintenance": Maintenance, "restore": Restore, "unlimited": Unlimited}
	for _, c := range []struct {
		ask
		may string
	}{
		{ask{ListBucket, ""}, "backup maintenance restore unlimited"},
		{ask{GetObject, "r/data/ab/abc"}, "backup maintenance restore unlimited"},
		{ask{PutObject, "r/data/ab/abc"}, "backup maintenance unlimited"},
		{ask{Delete, "r/locks/abc"}, "backup maintenance unlimited"},
		{ask{Delete, "r/snapshots/abc"}, "maintenance unlimited"},
		{ask{Delete, "r/data/ab/abc"}, "maintenance unlimited"},
		{ask{Delete, "r/locks"}, "maintenance unlimited"},
		{ask{DeleteOld, "r/locks/abc"}, "unlimited"},
		{ask{DeleteOld, "r/data/ab/abc"}, "unlimited"},
		{ask{ListVersions, ""}, "maintenance unlimited"},
		{ask{GetVersion, "r/data/ab/abc"}, "maintenance unlimited"},
		{ask{CreateBucket, ""}, "unlimited"},
		{ask{Bypass, "r/data/ab/abc"}, "unlimited"},
		{ask{"PUT ?versioning", ""}, "unlimited"},
		{ask{"PUT ?lifecycle", ""}, "unlimited"},
		{ask{"PUT ?retention", "r/config"}, "unlimited"},
		{ask{"PATCH ?", ""}, "unlimited"},
	} {
		for role, grants := range roles {
			want := strings.Contains(" "+c.may+" ", " "+role+" ")
			if got := allows(grants, c.a, c.object); got != want {
				t.Errorf("%s: %s on %q: allowed %v, want %v", role, c.a, c.object, got, want)
			}
		}
	}
}

func TestStarsStandForAnyText(t *testing.T) {
	for _, c := range []struct {
		pattern, name string
		want          bool
	}{
		{"*/locks/*", "r/locks/a", true}, {"*/locks/*", "a/b/locks/", true}, {"*/locks/*", "locks/a", false},
		{"*/locks/*", "r/data/locks", false}, {"a*b*c", "aXbYc", true}, {"a*b*c", "aXc", false}, {"a*a", "a", false},
		{"abc", "abc", true}, {"abc", "abcd", false}, {"*", "", true},
	} {
		if got := matches(c.pattern, c.name); got != c.want {
			t.Errorf("%q fits %q: %v, want %v", c.name, c.pattern, got, c.want)
		}
	}
}

func TestOnlyLargePacksMoveToTheColdClass(t *testing.T) {
	rules := []Rule{{Bucket: "slow", Prefix: "restic/data/", LargerThan: 131072, Class: "GLACIER_IR"}}
	for _, c := range []struct {
		o    Object
		want string
	}{
		{Object{Bucket: "slow", Name: "restic/data/ab/abc", Bytes: 131073, Asked: Standard}, "GLACIER_IR"},
		{Object{Bucket: "slow", Name: "restic/data/ab/abc", Bytes: 131072, Asked: Standard}, Standard},
		{Object{Bucket: "slow", Name: "restic/index/abc", Bytes: 1 << 20, Asked: Standard}, Standard},
		{Object{Bucket: "fast", Name: "restic/data/ab/abc", Bytes: 1 << 20, Asked: Standard}, Standard},
		{Object{Bucket: "fast", Name: "restic/locks/abc", Bytes: 100, Asked: "GLACIER_IR"}, "GLACIER_IR"},
	} {
		if got := class(rules, c.o); got != c.want {
			t.Errorf("%+v lies in %s, want %s", c.o, got, c.want)
		}
	}
}

func TestFaultsThatNobodyKnowsAreRefused(t *testing.T) {
	p := New(Config{Upstream: &url.URL{Scheme: "http", Host: "nowhere"}})
	for _, f := range []Fault{{}, {Kind: "502"}, {Kind: Drip, Speed: -1}, {Kind: Cut, Times: -1}} {
		if _, err := p.Inject(f); err == nil {
			t.Errorf("%+v was accepted", f)
		}
	}
}

func TestAFaultBeginsAndEndsWhenItSays(t *testing.T) {
	p := New(Config{Upstream: &url.URL{Scheme: "http", Host: "nowhere"}})
	remove, err := p.Inject(Fault{Kind: SlowDown, Action: PutObject, Object: "*/data/*", After: 1, Times: 2})
	if err != nil {
		t.Fatal(err)
	}
	var hits []bool
	for range 4 {
		hits = append(hits, p.fault(PutObject, "backup", "r/data/1") != nil)
	}
	if hits[0] || !hits[1] || !hits[2] || hits[3] {
		t.Errorf("hit %v, want the second and third", hits)
	}
	if p.fault(GetObject, "backup", "r/data/1") != nil || p.fault(PutObject, "backup", "r/index/1") != nil {
		t.Error("hit what it does not name")
	}
	remove()
	if len(p.faults) != 0 {
		t.Error("still there after it was removed")
	}
}
