package s3proxy

import (
	"net/http"
	"net/url"
	"strings"
)

// An Action is what a request asks for, in the words of IAM ("PutObject"). What has no name here is called by its method
// and sub-resource ("PUT ?policy"), which no key but an unlimited one may do.
type Action string

const (
	ListBuckets  Action = "ListAllMyBuckets"
	ListBucket   Action = "ListBucket"
	ListVersions Action = "ListBucketVersions"
	Location     Action = "GetBucketLocation"
	CreateBucket Action = "CreateBucket"
	GetObject    Action = "GetObject"
	GetVersion   Action = "GetObjectVersion"
	PutObject    Action = "PutObject"
	Delete       Action = "DeleteObject"
	DeleteOld    Action = "DeleteObjectVersion"
	DeleteMany   Action = "DeleteObjects" // each key in its body is a Delete or a DeleteOld
	AbortUpload  Action = "AbortMultipartUpload"
	ListParts    Action = "ListMultipartUploadParts"
	ListUploads  Action = "ListBucketMultipartUploads"
	Bypass       Action = "BypassGovernanceRetention"
)

// plain are the query parameters that change nothing about what is asked for.
var plain = map[string]bool{
	"list-type": true, "prefix": true, "delimiter": true, "max-keys": true, "marker": true, "start-after": true,
	"continuation-token": true, "fetch-owner": true, "encoding-type": true, "key-marker": true, "version-id-marker": true,
	"max-uploads": true, "upload-id-marker": true, "max-parts": true, "part-number-marker": true, "partNumber": true,
	"x-id": true, "metadata": true,
}

// split returns bucket and key of a path-style request. Virtual hosts ("bucket.s3...") are not understood: restic and
// Terraform use paths for every endpoint that is not Amazon's own.
func split(path string) (bucket, key string) {
	bucket, key, _ = strings.Cut(strings.TrimPrefix(path, "/"), "/")
	return bucket, key
}

// action names what a request asks for. It looks at method, path, query and headers, never at the body.
func action(method string, u *url.URL, h http.Header) Action {
	bucket, key := split(u.Path)
	var sub string // the sub-resource: the one parameter that is neither plain nor part of a signature
	for name := range u.Query() {
		lower := strings.ToLower(name)
		if plain[name] || strings.HasPrefix(lower, "x-amz-") || strings.HasPrefix(lower, "response-") {
			continue
		}
		if sub != "" && sub != name {
			return Action(method + " ?" + min(sub, name) + "&" + max(sub, name)) // two at once: nobody's
		}
		sub = name
	}
	type ask struct {
		method string
		sub    string
	}
	var known map[ask]Action
	switch {
	case bucket == "":
		known = map[ask]Action{{http.MethodGet, ""}: ListBuckets}
	case key == "":
		known = map[ask]Action{
			{http.MethodGet, ""}: ListBucket, {http.MethodHead, ""}: ListBucket,
			{http.MethodGet, "location"}: Location,
			{http.MethodGet, "versions"}: ListVersions,
			{http.MethodGet, "uploads"}:  ListUploads,
			{http.MethodPut, ""}:         CreateBucket,
			{http.MethodPost, "delete"}:  DeleteMany,
		}
	default:
		known = map[ask]Action{
			{http.MethodGet, ""}: GetObject, {http.MethodHead, ""}: GetObject,
			{http.MethodGet, "attributes"}: GetObject,
			{http.MethodGet, "versionId"}:  GetVersion, {http.MethodHead, "versionId"}: GetVersion,
			{http.MethodPut, ""}: PutObject, {http.MethodPut, "uploadId"}: PutObject,
			{http.MethodPost, "uploads"}: PutObject, {http.MethodPost, "uploadId"}: PutObject,
			{http.MethodDelete, ""}:          Delete,
			{http.MethodDelete, "versionId"}: DeleteOld,
			{http.MethodDelete, "uploadId"}:  AbortUpload,
			{http.MethodGet, "uploadId"}:     ListParts,
		}
	}
	a, ok := known[ask{method, sub}]
	switch {
	case !ok:
		return Action(method + " ?" + sub)
	case h.Get("X-Amz-Bypass-Governance-Retention") != "":
		return Bypass
	}
	return a
}

// keyID returns the access key ID that a request is signed with: "" when it is not signed, or not by version 4.
func keyID(r *http.Request) string {
	credential := r.URL.Query().Get("X-Amz-Credential")
	if rest, ok := strings.CutPrefix(r.Header.Get("Authorization"), "AWS4-HMAC-SHA256 "); ok {
		for part := range strings.SplitSeq(rest, ",") {
			if value, ok := strings.CutPrefix(strings.TrimSpace(part), "Credential="); ok {
				credential = value
			}
		}
	}
	id, _, _ := strings.Cut(credential, "/")
	return id
}
