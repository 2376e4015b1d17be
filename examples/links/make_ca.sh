#!/bin/sh
# A certificate authority for links, and a certificate for each site. Needs openssl.
#
#     sh make_ca.sh KEYS SITE=HOST[,HOST...] ...
#     sh make_ca.sh keys berlin=berlin.example paris=paris.example,10.0.0.7
#
# A HOST is a name or an address by which the others connect to the site; one that only connects to
# others needs none ("rome="). Writes into the directory KEYS:
#
#     ca.pem              the authority's certificate: every site gets it
#     ca.key              its key: no site gets it; who has it can make certificates
#     SITE.pem, SITE.key  the site's certificate, whose common name is SITE, and its key
#
# Run again with further sites, it goes on with the authority that is there. Certificates are valid
# for 825 days, the authority's for ten years.
set -eu
umask 077

if [ $# -lt 2 ]; then
    sed -n '2,/^set/{s/^# \{0,1\}//p}' "$0" >&2
    exit 2
fi
keys=$1
shift
mkdir -p "$keys"
cd "$keys"

new_key() {
    openssl ecparam -name prime256v1 -genkey -noout | openssl pkcs8 -topk8 -nocrypt -out "$1"
}

if [ ! -e ca.key ]; then
    new_key ca.key
    openssl req -x509 -new -key ca.key -sha256 -days 3650 -subj "/CN=shmbus links" -out ca.pem \
        -addext "keyUsage=critical,keyCertSign,cRLSign"
fi

for each in "$@"; do
    site=${each%%=*}
    hosts=${each#"$site"}
    hosts=${hosts#=}
    if [ -z "$site" ] || [ "$site" = ca ] || [ -e "$site.key" ]; then
        echo "$0: site '$site' is there already, or cannot be named so" >&2
        exit 1
    fi
    names=DNS:$site
    for host in $(echo "$hosts" | tr ',' ' '); do
        case $host in
            *[!0-9.]*) case $host in *:*) kind=IP ;; *) kind=DNS ;; esac ;;
            *) kind=IP ;;
        esac
        names=$names,$kind:$host
    done
    new_key "$site.key"
    openssl req -new -key "$site.key" -subj "/CN=$site" |
        openssl x509 -req -CA ca.pem -CAkey ca.key -set_serial "0x$(openssl rand -hex 16)" \
            -sha256 -days 825 -out "$site.pem" -extfile /dev/fd/3 3<<EXTENSIONS
basicConstraints=critical,CA:FALSE
keyUsage=critical,digitalSignature
extendedKeyUsage=serverAuth,clientAuth
subjectAltName=$names
EXTENSIONS
done
