package access

import (
	"context"

	"github.com/managemyclaw/hardshell/composio"
)

// Find returns what c's detectors find in a text.
func Find(c Config, text []byte) ([]Match, error) {
	return newScanner(&c).scan(context.Background(), text)
}

// Secrets returns secrets.
func Secrets(all ...string) []composio.Secret {
	var s []composio.Secret
	for _, v := range all {
		s = append(s, composio.NewSecret(v))
	}
	return s
}

// Judges.
var (
	JudgeGuard       = judgeGuard
	JudgeCredentials = judgeCredentials
	JudgeSettings    = judgeSettings
	JudgeGatewayOnly = judgeGatewayOnly
	JudgeStores      = judgeStores
	JudgeMasked      = judgeMasked
	JudgeMCPKey      = judgeMCPKey
	JudgeAllowlists  = judgeAllowlists
	JudgePolicy      = judgePolicy
	JudgeOffer       = judgeOffer
	JudgeTrail       = judgeTrail
	JudgePinned      = judgePinned
	JudgeFresh       = judgeFresh
	JudgeComplete    = judgeComplete
	JudgeTrailGuard  = judgeTrailGuard
)

// Judges of the kill switch.
var (
	JudgeArmed       = judgeArmed
	JudgeFence       = judgeFence
	JudgeDrilled     = judgeDrilled
	JudgeRestarts    = judgeRestarts
	JudgeSwitchGuard = judgeSwitchGuard
)
