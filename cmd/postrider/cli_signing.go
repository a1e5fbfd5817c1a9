package main

// signingFlags are how an endpoint's requests are signed; nil is "not given".
type signingFlags struct {
	Scheme          *string `placeholder:"NAME" help:"How requests are signed: standard, custom, stripe, github, shopify or slack. An update starts anew with it: custom fields that are not given are taken back."`
	Header          *string `placeholder:"NAME" help:"Header with the signatures, for custom."`
	Algorithm       *string `placeholder:"sha256" help:"Hash of the HMAC, for custom: sha1, sha256 or sha512."`
	Encoding        *string `placeholder:"hex" help:"How a signature is written, for custom: hex, base64 or base64url."`
	Prefix          *string `placeholder:"TEXT" help:"Stands before each signature, for custom."`
	Start           *string `placeholder:"TEXT" help:"Begins the header's value, with {id} and {timestamp}, for custom."`
	Separator       *string `placeholder:"TEXT" help:"Between the signatures of several secrets, for custom."`
	Template        *string `placeholder:"TEXT" help:"What is signed, with {body}, {timestamp} and {id}, for custom."`
	TimestampHeader *string `placeholder:"NAME" help:"Header for the time in Unix seconds, for custom."`
	IDHeader        *string `name:"id-header" placeholder:"NAME" help:"Header for the event id, for custom."`
	TypeHeader      *string `placeholder:"NAME" help:"Header for the event's type, for custom."`
}

// fields are the members of signing beside scheme.
func (f *signingFlags) fields() map[string]*string {
	return map[string]*string{
		"header": f.Header, "algorithm": f.Algorithm, "encoding": f.Encoding, "prefix": f.Prefix, "start": f.Start,
		"separator": f.Separator, "template": f.Template, "timestamp_header": f.TimestampHeader, "id_header": f.IDHeader,
		"type_header": f.TypeHeader,
	}
}

// put sets what was given in the body of a request.
func (f *signingFlags) put(body settings) {
	signing := settings{}
	signing.set("scheme", f.Scheme, f.Scheme != nil)
	for name, value := range f.fields() {
		signing.set(name, value, value != nil)
	}
	body.set("signing", signing, len(signing) > 0)
}

// anew takes back, in a merge patch that names a scheme, what was not given.
func (f *signingFlags) anew(body settings) {
	signing, ok := body["signing"].(settings)
	if !ok || f.Scheme == nil {
		return
	}
	for name, value := range f.fields() {
		if value == nil {
			signing[name] = nil
		}
	}
}
