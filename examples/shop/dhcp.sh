#!/bin/sh
# What `busybox udhcpc` runs with a lease in its environment.
case $1 in
bound | renew)
	ip address replace "$ip/$mask" dev "$interface"
	ip route replace default via "$router"
	;;
esac
