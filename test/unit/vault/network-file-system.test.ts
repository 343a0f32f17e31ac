import { networkFileSystem } from '../../../core/vault/network-file-system.ts';

const mounts = `
22 27 0:21 / /proc rw,relatime - proc proc rw
27 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw
30 27 0:30 / /mnt/nfs rw,relatime shared:2 master:1 - nfs4 filer:/export rw,vers=4.2
31 27 0:31 / /mnt/cifs rw - cifs //filer/share rw
32 27 0:32 / /mnt/ssh rw - fuse.sshfs user@host: rw
33 27 0:33 / /mnt/with\\040blank rw - nfs filer:/b rw
34 27 0:34 / /mnt/nfs/local rw - xfs /dev/vdb rw
35 27 0:35 / /auto rw - autofs systemd-1 rw
36 35 0:36 / /auto rw - nfs filer:/c rw
37 27 0:37 / /mnt/9p rw - 9p share rw
38 27 0:38 / /mnt/ceph rw - ceph a:/ rw
39 27 0:39 / /mnt/gluster rw - fuse.glusterfs a:/ rw
40 27 0:40 / /mnt/lustre rw - lustre a:/ rw
41 27 0:41 / /mnt/tmp rw - tmpfs tmpfs rw
42 27 0:42 / /mnt/overlay rw - overlay overlay rw,lowerdir=/a
43 27 0:43 / /mnt/crypt rw - fuse.gocryptfs /a rw
`;

test.each([
  ['/srv/vault', undefined],
  ['/', undefined],
  ['/mnt/nfs', 'nfs4'],
  ['/mnt/nfs/vault/deep', 'nfs4'],
  ['/mnt/nfsx', undefined],
  ['/mnt/nfs/local/vault', undefined],
  ['/mnt/cifs/vault', 'cifs'],
  ['/mnt/ssh/vault', 'fuse.sshfs'],
  ['/mnt/with blank/vault', 'nfs'],
  ['/auto/vault', 'nfs'],
  ['/mnt/9p/v', '9p'],
  ['/mnt/ceph/v', 'ceph'],
  ['/mnt/gluster/v', 'fuse.glusterfs'],
  ['/mnt/lustre/v', 'lustre'],
  ['/mnt/tmp/v', undefined],
  ['/mnt/overlay/v', undefined],
  ['/mnt/crypt/v', undefined],
])('%s lies on %s', (path, type) => {
  expect(networkFileSystem(mounts, path)).toBe(type);
});

test('takes nothing for a network file system where the mounts are not known', () => {
  expect(networkFileSystem('', '/srv/vault')).toBeUndefined();
});
