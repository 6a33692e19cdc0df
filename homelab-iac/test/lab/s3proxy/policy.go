package s3proxy

import (
	"slices"
	"strings"
	"time"
)

// A Key is who may come in. The secret is not here: the server behind checks the signature, the proxy only looks at whose
// it claims to be, so a request that lies about it is refused behind.
type Key struct {
	ID      string    // the access key ID
	Role    string    // what it is called in records
	Grants  []Grant   // what it may do; nothing else
	Expires time.Time // zero: never
}

// A Grant allows actions on the objects whose name matches Object, in which * stands for any run of characters, slashes
// included, as in IAM. Empty lists and names mean all.
type Grant struct {
	Actions []Action
	Object  string
}

// The four keys of a repository. A restic client with the backup key cannot delete or forget anything: its own locks are
// all that it may remove. It may write over an object, as on Amazon's S3: there, and here, versions are the defence.
var (
	// Backup writes snapshots: append only.
	Backup = []Grant{
		{Actions: []Action{ListBucket, Location, ListUploads, GetObject, PutObject, AbortUpload, ListParts}},
		{Actions: []Action{Delete}, Object: "*/locks/*"},
	}
	// Maintenance forgets and prunes. What it deletes stays as an old version, which it may read and write on top again.
	Maintenance = []Grant{{Actions: []Action{ListBucket, ListVersions, Location, ListUploads, GetObject, GetVersion, PutObject, AbortUpload, ListParts, Delete}}}
	// Restore reads; restic needs --no-lock with it.
	Restore = []Grant{{Actions: []Action{ListBucket, Location, GetObject}}}
	// Unlimited makes buckets and undoes deletions.
	Unlimited = []Grant{{}}
)

// allows tells whether one of the grants covers an action on an object ("" is the bucket itself).
func allows(grants []Grant, a Action, object string) bool {
	return slices.ContainsFunc(grants, func(g Grant) bool {
		return (len(g.Actions) == 0 || slices.Contains(g.Actions, a)) && (g.Object == "" || matches(g.Object, object))
	})
}

// matches tells whether a name fits a pattern in which * stands for any run of characters, also an empty one.
func matches(pattern, name string) bool {
	parts := strings.Split(pattern, "*")
	if len(parts) == 1 {
		return pattern == name
	}
	name, ok := strings.CutPrefix(name, parts[0])
	if !ok {
		return false
	}
	for _, part := range parts[1 : len(parts)-1] {
		_, after, ok := strings.Cut(name, part)
		if !ok {
			return false
		}
		name = after
	}
	return strings.HasSuffix(name, parts[len(parts)-1])
}
