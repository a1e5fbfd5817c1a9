package control

import (
	"errors"
	"fmt"
	"time"

	"github.com/postrider/postrider/internal/registry"
	"github.com/postrider/postrider/internal/signature"
)

// signingSettings says how requests are signed. The fields are those of
// registry.Signing.
type signingSettings struct {
	Scheme          string `json:"scheme,omitempty" enum:"standard,custom,stripe,github,shopify,slack" doc:"standard (the default) is Standard Webhooks; the others sign with an HMAC whose key is the secret's text. All further members are for custom."`
	Header          string `json:"header,omitempty" maxLength:"64" example:"X-Signature" doc:"The header with the signatures."`
	Algorithm       string `json:"algorithm,omitempty" enum:"sha1,sha256,sha512" doc:"Default sha256."`
	Encoding        string `json:"encoding,omitempty" enum:"hex,base64,base64url" doc:"How a signature is written. Default hex."`
	Prefix          string `json:"prefix,omitempty" maxLength:"64" example:"sha256=" doc:"Stands before each signature."`
	Start           string `json:"start,omitempty" maxLength:"128" example:"t={timestamp}," doc:"Begins the header's value; {id} and {timestamp} are replaced."`
	Separator       string `json:"separator,omitempty" maxLength:"8" example:"," doc:"Between the signatures of several live secrets. Absent: the newest secret alone signs."`
	Template        string `json:"template,omitempty" maxLength:"256" example:"{timestamp}.{body}" doc:"What is signed: text with {body}, {timestamp} and {id}; {body} once. Without {timestamp} a request can be replayed for ever. Default {id}.{timestamp}.{body}."`
	TimestampHeader string `json:"timestamp_header,omitempty" maxLength:"64" doc:"A header for the time in Unix seconds, beside webhook-timestamp."`
	IDHeader        string `json:"id_header,omitempty" maxLength:"64" doc:"A header for the event id, beside webhook-id."`
	TypeHeader      string `json:"type_header,omitempty" maxLength:"64" doc:"A header for the event's type."`
}

// signingPatch is a merge patch of signingSettings.
type signingPatch struct {
	Scheme          string `json:"scheme,omitempty" enum:"standard,custom,stripe,github,shopify,slack" nullable:"true"`
	Header          string `json:"header,omitempty" maxLength:"64" nullable:"true"`
	Algorithm       string `json:"algorithm,omitempty" enum:"sha1,sha256,sha512" nullable:"true"`
	Encoding        string `json:"encoding,omitempty" enum:"hex,base64,base64url" nullable:"true"`
	Prefix          string `json:"prefix,omitempty" maxLength:"64" nullable:"true"`
	Start           string `json:"start,omitempty" maxLength:"128" nullable:"true"`
	Separator       string `json:"separator,omitempty" maxLength:"8" nullable:"true"`
	Template        string `json:"template,omitempty" maxLength:"256" nullable:"true"`
	TimestampHeader string `json:"timestamp_header,omitempty" maxLength:"64" nullable:"true"`
	IDHeader        string `json:"id_header,omitempty" maxLength:"64" nullable:"true"`
	TypeHeader      string `json:"type_header,omitempty" maxLength:"64" nullable:"true"`
}

func signingNames() names {
	return names{
		"scheme": nil, "header": nil, "algorithm": nil, "encoding": nil, "prefix": nil, "start": nil, "separator": nil,
		"template": nil, "timestamp_header": nil, "id_header": nil, "type_header": nil,
	}
}

// signingOf is the inverse of applySigning.
func signingOf(e *registry.Endpoint) *signingSettings {
	if e.Signing == (registry.Signing{}) {
		return nil
	}
	set := signingSettings(e.Signing)
	return &set
}

// applySigning sets how the endpoint's requests are signed, or says what is wrong
// with it.
func applySigning(set *signingSettings, e *registry.Endpoint) (faults []fault) {
	e.Signing = registry.Signing{}
	if set == nil {
		return nil
	}
	e.Signing = registry.Signing(*set)
	_, err := signature.New(signature.Spec(e.Signing))
	if spec, ok := errors.AsType[*signature.SpecError](err); ok {
		for _, f := range spec.Faults {
			faults = append(faults, fault{"/signing/" + f.Field, f.Detail, codeInvalidSigning})
		}
	}
	return faults
}

// checkSecret checks a secret that the caller brings, and the kind that is
// wanted, against how the endpoint signs. Both may be absent.
func checkSecret(e *registry.Endpoint, secret string, kind signature.Kind) []fault {
	scheme, err := signature.New(signature.Spec(e.Signing))
	if err != nil {
		return nil // applySigning says what is wrong
	}
	if secret == "" {
		if kind == signature.KindEd25519 && scheme.Parses(kind) != nil {
			return []fault{{"/secret_kind", scheme.Parses(kind).Error(), codeInvalidSecret}}
		}
		return nil
	}
	if _, err := scheme.Parse(secret); err != nil {
		return []fault{{"/secret", err.Error(), codeInvalidSecret}}
	}
	if has := signature.KindOf(secret); kind != "" && kind != has {
		return []fault{{"/secret_kind", fmt.Sprintf("the secret is one of the kind %s", has), codeInvalidSecret}}
	}
	return nil
}

// changeSigning checks the secrets of an endpoint that is to sign in another way:
// those that are still live must fit, the others are let go.
func (s *Server) changeSigning(before registry.Signing, next *registry.Endpoint) error {
	if next.Signing == before {
		return nil
	}
	scheme, err := signature.New(signature.Spec(next.Signing))
	if err != nil {
		return err
	}
	var live []registry.Secret
	for _, secret := range next.Secrets {
		if !secret.ExpiresAt.IsZero() && !secret.ExpiresAt.After(s.now()) {
			continue
		}
		text, err := s.openSecret(next, secret)
		if err != nil {
			return err
		}
		if _, err := scheme.Parse(text); err != nil {
			return invalid(fault{"/signing/scheme", fmt.Sprintf("the secret of %s does not fit: %v; rotate to one that does first, with an overlap of 0s",
				secret.CreatedAt.Format(time.RFC3339), err), codeInvalidSigning})
		}
		live = append(live, secret)
	}
	next.Secrets = live
	return nil
}
