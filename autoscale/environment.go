package autoscale

import (
	"os"
	"slices"
	"strconv"
	"strings"
)

// common are the variables of this process that workers get: where programs and
// files are, who runs them, and in which language, time zone and with which
// certificates. The last two lines are Windows'. None of them holds a secret.
var common = []string{
	"PATH", "HOME", "USER", "LOGNAME", "SHELL", "TMPDIR", "TMP", "TEMP",
	"LANG", "LANGUAGE", "TZ", "SSL_CERT_FILE", "SSL_CERT_DIR",
	"SYSTEMROOT", "SYSTEMDRIVE", "WINDIR", "COMSPEC", "PATHEXT", "USERNAME", "USERPROFILE",
	"APPDATA", "LOCALAPPDATA", "PROGRAMDATA", "PROGRAMFILES", "NUMBER_OF_PROCESSORS", "PROCESSOR_ARCHITECTURE",
}

// environment is that of the worker of a number. Of a name that comes twice the last
// one counts.
func (p *Processes) environment(number int) []string {
	env := slices.DeleteFunc(os.Environ(), func(variable string) bool {
		name, _, _ := strings.Cut(variable, "=")
		name = strings.ToUpper(name) // Windows writes Path
		return !slices.Contains(common, name) && !strings.HasPrefix(name, "LC_")
	})
	env = append(env, p.job.Env...)
	return append(env,
		"OSMOSIS_KAFKA="+p.job.Kafka,
		"OSMOSIS_TOPIC="+p.job.Topic,
		"OSMOSIS_GROUP="+p.job.Group,
		"OSMOSIS_WORKER="+strconv.Itoa(number),
	)
}
